"""Runs of a model over the positions behind a cut alone, where it reads those before only by attention."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn

from statesize.adapters.forward import Forward
from statesize.adapters.kernels.attention import Attend, replaced_attention
from statesize.adapters.models.model_state import known_options
from statesize.adapters.models.precision import MOST_ROUNDED, stored_dtype
from statesize.adapters.observation import Observation, unchanged
from statesize.adapters.replaced import source_files
from statesize.adapters.runs import Attach
from statesize.errors import ModelError
from statesize.operators import SoftmaxAttention
from statesize.truncation.past import HeldAttention

# Rounding of attention and of logits in float32, as a share of the largest number.
_ROUNDING = 1e-4
POSITIONS = 512
"""Positions of which several runs return logits at once: more take memory, and are hardly faster."""


@dataclass(frozen=True, eq=False)
class Memory:
    """What stands before the positions behind a cut in one layer, in R runs; None is what the layer holds."""

    # (R, K, g or 1, i, P), or what makes them of rows of T behind the cut, (R, K, g, n, L)
    values: Tensor | Callable[[Tensor], Tensor] | None = None
    keys: Tensor | None = None  # (R, K, i, d)
    seen: Tensor | None = None  # which positions are there, (R, K, i) bool


Remember = Callable[[HeldAttention], Memory]


@dataclass(eq=False)
class Behind:
    """A model over the positions behind a cut of one text, which it has read whole."""

    forward: Forward
    cut: int
    # Attention whose T follows from what its function is given, by module; and why not, by name of other mixers.
    held: dict[nn.Module, HeldAttention] = field(default_factory=dict[nn.Module, HeldAttention])
    refused: dict[str, str] = field(default_factory=dict[str, str], init=False)
    # Whether T of all mixers is known so, and the model returns the same without what it computes before.
    sure: bool = False
    _given: dict[nn.Module, tuple[Tensor, ...]] = field(default_factory=dict[nn.Module, tuple[Tensor, ...]], init=False)

    @property
    def _rounding(self) -> float:
        return _ROUNDING if stored_dtype(self.forward.model).itemsize >= torch.float32.itemsize else MOST_ROUNDED

    def attach(self, stack: ExitStack) -> None:
        """See what attention functions are given and return in a run over whole texts."""

        def attending(_: str, function: Attend) -> Attend:
            def attend(module: nn.Module, query: Tensor, key: Tensor, value: Tensor, *args: Any, **options: Any) -> Any:
                result = function(module, query, key, value, *args, **options)
                # Whoever observes it may call it again, with values of its own.
                self._given.setdefault(module, (query, key, value, result[0]))
                return result

            return attend

        stack.enter_context(replaced_attention(source_files(self.forward.parts), attending))

    def note(self, module: nn.Module, name: str, seen: Observation) -> bool:
        """Know T of a mixer if that is the attention of what its function was given, and gives its answer."""
        given, operator = self._given.pop(module, None), seen.operator(slice(None))
        if given is None:
            self.refused[name] = f"is {seen.kind} by code of its own"
            return False
        self.refused[name] = "weighs keys by more than their products with queries"
        *parts, answer = given
        whole = all(len(part) == 1 and part.shape[2] == self.forward.length for part in parts)
        if not isinstance(operator, SoftmaxAttention) or operator.key_bias is not None or seen.order or not whole:
            return False
        query, key, value = (part[0].to(operator.query.dtype) for part in parts)
        mixed = ((query, operator.query), (key, operator.key), (value, seen.values))
        # A layer whose heads read nothing in common may name no groups.
        same = all(torch.equal(a.repeat_interleave(len(query) // len(a), 0), b[0]) for a, b in mixed)
        if seen.passed_on is not unchanged or not same:
            return False
        heads = len(key), len(query) // len(key)
        sink = operator.sink if operator.sink is None else operator.sink.reshape(heads)
        form = operator.scale, operator.window, operator.soft_cap, sink
        known = HeldAttention(name, self.cut, query.reshape(*heads, *query.shape[1:]), key, value, *form)
        if self._answers(known, answer[0]):
            self.held[module] = known
            del self.refused[name]
        return module in self.held

    def _answers(self, held: HeldAttention, answer: Tensor) -> bool:
        """Whether attention gives what its function returned behind the cut, of (L, H, P)."""
        rows = held.rows(held.query[None, :, :, self.cut :], held.key[None])
        found = (rows.flatten(2, 3) @ held.value).reshape(-1, len(answer) - self.cut, held.value.shape[-1])
        return bool((found.transpose(0, 1) - answer[self.cut :]).abs().max() <= self._rounding * answer.abs().max())

    def settle(self, logits: Tensor, *, compare: bool = True) -> None:
        """Whether the runs are sure, if T of all mixers is known: compared with logits of the whole run if asked."""
        self._given.clear()
        if not self.refused and len(self.forward.args) == 1 and known_options(self.forward.model, position_ids=None):
            difference = (self.logits(lambda _: Memory())[0] - logits).abs().max() if compare else logits.new_zeros(())
            self.sure = bool(difference <= self._rounding * logits.abs().max())

    def others(self, texts: Tensor, attach: Attach | None = None) -> tuple[list[Behind], Tensor]:
        """The same model behind the cut of other texts (D, L), which it reads at once, and their logits (D, n, V)."""
        forward = replace(self.forward, args=(texts.to(self.forward.args[0].device),))
        logits = cast("Tensor", whole_model(forward, self.cut).hidden(attach=attached(self.attach, attach)))
        given, self._given = self._given, {}
        found = list[Behind]()
        for number in range(len(texts)):
            one = Behind(replace(forward, args=(forward.args[0][number : number + 1],)), self.cut, sure=True)
            for module, known in self.held.items():
                query, key, value, answer = (part[number] for part in given[module])
                query, key, value = (part.to(known.key.dtype) for part in (query, key, value))
                one.held[module] = replace(known, query=query.reshape(known.query.shape), key=key, value=value)
                if not self._answers(one.held[module], answer):
                    raise ModelError(f"{known.name} attends to other texts otherwise. No price is known.")
            found.append(one)
        return found, logits[:, self.cut - forward.length : -1].float()

    def logits(self, remember: Remember, runs: int = 1, last: int = 0) -> Tensor:
        """Logits behind the cut without the last, (R, n − 1, V) float32; of so many positions only, 0 for all."""
        return logits_behind([(self, remember, runs)], last)[0]


def attached(first: Attach, second: Attach | None) -> Attach:
    """Both changes of a run, or the first alone."""
    return lambda stack: (first(stack), None if second is None else second(stack))


def whole_model(forward: Forward, cut: int) -> Forward:
    """Runs that return logits from a cut on."""
    kept = known_options(forward.model, logits_to_keep=forward.length - cut)
    return replace(forward, backbone=forward.model, kwargs={**forward.kwargs, **kept})


def logits_behind(parts: Sequence[tuple[Behind, Remember, int]], last: int = 0) -> list[Tensor]:
    """What `Behind.logits` gives of several texts of one length, with runs of each, which are read at once."""
    first = parts[0][0]
    forward, cut = first.forward, first.cut
    texts = torch.cat([one.forward.args[0][:, cut:].expand(runs, -1) for one, _, runs in parts])
    positions = torch.arange(cut, forward.length, device=texts.device).expand(len(texts), -1)
    count = last + 1 if last else forward.length - cut
    options = known_options(forward.model, position_ids=positions, logits_to_keep=count)
    part = replace(forward, backbone=forward.model, args=(texts,), kwargs={**forward.kwargs, **options})

    def attach(stack: ExitStack) -> None:
        stack.enter_context(replaced_attention(source_files(forward.parts), partial(_attending, parts)))

    logits = cast("Tensor", part.hidden(attach=attach))[:, -count:-1].float()
    return _split(logits, parts)


def _split(together: Tensor, parts: Sequence[tuple[Behind, Remember, int]]) -> list[Tensor]:
    return list(cast("Any", together).split([runs for *_, runs in parts]))


def _attending(parts: Sequence[tuple[Behind, Remember, int]], _: str, function: Attend) -> Attend:
    def attend(module: nn.Module, query: Tensor, key: Tensor, value: Tensor, *args: Any, **options: Any) -> Any:
        if module not in parts[0][0].held:
            return function(module, query, key, value, *args, **options)
        mixed, given = list[Tensor](), (_split(part, parts) for part in (query, key, value))
        # Modes of the run, such as a device by default, are not for what is computed here.
        with torch._C.DisableTorchFunction():  # pyright: ignore[reportPrivateUsage]
            for (one, remember, _), *each in zip(parts, *given, strict=True):
                held = one.held[module]
                mixed.append(_mixed(held, remember(held), *(part.to(held.key.dtype) for part in each)))
        return torch.cat(mixed).flatten(1, 2).transpose(1, 2).to(query.dtype).contiguous(), None

    return attend


def _mixed(held: HeldAttention, memory: Memory, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """What attention passes on behind the cut, (R, K, g, n, P), of queries (R, H, n, d) and keys (R, K, n, d) there."""
    runs, cut, past = len(query), held.cut, held.key[None, :, : held.cut]
    keys = (past if memory.keys is None else memory.keys).expand(runs, -1, -1, -1)
    seen = memory.seen
    if seen is not None:
        seen = torch.cat([seen, seen.new_ones(*seen.shape[:2], key.shape[2])], -1)
    rows = held.rows(query.reshape(runs, *held.query.shape[:2], *query.shape[2:]), torch.cat([keys, key], 2), seen)
    values = memory.values(rows) if callable(memory.values) else memory.values
    if values is None:
        values = held.value[None, :, None, :cut].expand(runs, -1, -1, -1, -1)
    if values.shape[2] == 1:
        # The heads of a cache read the same values, which are not copied for each.
        return (rows.flatten(2, 3) @ torch.cat([values[:, :, 0], value], 2)).reshape(*rows.shape[:-1], -1)
    behind = (rows[..., cut:].flatten(2, 3) @ value).reshape(*rows.shape[:-1], -1)
    return rows[..., :cut] @ values + behind
