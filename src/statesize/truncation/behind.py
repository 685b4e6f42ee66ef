"""Runs of a model over the positions behind a cut alone, where it reads those before only by attention."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import count
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn

from statesize.adapters.forward import Forward
from statesize.adapters.kernels.attention import Attend, replaced_attention
from statesize.adapters.kernels.rotation import Rotation
from statesize.adapters.models.model_state import known_options
from statesize.adapters.models.precision import MOST_ROUNDED, stored_dtype
from statesize.adapters.observation import Observation, unchanged
from statesize.adapters.replaced import source_files
from statesize.operators import SoftmaxAttention

# Rounding of attention and of logits in float32, as a share of the largest number.
_ROUNDING = 1e-4
POSITIONS = 512
"""Positions of which several runs return logits at once: more take memory, and are hardly faster."""
Run = TypeVar("Run")


@dataclass(frozen=True, eq=False)
class HeldAttention:
    """Attention of one layer over a text of L tokens, whose K caches are each read by g heads."""

    name: str  # of the module
    cut: int  # position i; what stands before it is held
    query: Tensor  # (K, g, L, d), as they meet the keys
    key: Tensor  # (K, L, d)
    value: Tensor  # (K, L, P)
    text: int  # its number, of those that were read together
    scale: float  # factor on the scores
    window: int | None = None  # positions that a query sees; None for all
    soft_cap: float | None = None  # bound on the scores; None for none
    sink: Tensor | None = None  # logit of a column that carries nothing, (K, g); None for none
    rotation: Rotation | None = None  # of the held positions, which may be none; None where it is not known

    @property
    def available(self) -> int:
        """Tokens that each cache holds at the cut, the last ones."""
        return self.cut if self.window is None else min(self.cut, self.window - 1)

    def rows(self, query: Tensor, key: Tensor, seen: Tensor | None = None) -> Tensor:
        """Rows of T, (R, K, g, n, m), of the last n positions of m keys."""
        # Of query (R, K, g, n, d) and key (R or 1, K, m, d); `seen` says which keys are there, (R, K, m) bool.
        count, keys = query.shape[-2], key.shape[-2]
        scores = (query.flatten(2, 3) @ key.mT).mul_(self.scale).reshape(*query.shape[:-1], keys)
        if self.soft_cap is not None:
            scores = (scores / self.soft_cap).tanh() * self.soft_cap
        lag = torch.arange(keys - count, keys, device=key.device)[:, None] - torch.arange(keys, device=key.device)
        hidden = (lag < 0) if self.window is None else (lag < 0) | (lag >= self.window)
        if seen is not None:
            hidden = hidden | ~seen[:, :, None, None]
        scores = scores.masked_fill_(hidden, -torch.inf)
        if self.sink is None:
            return scores.softmax(-1)
        total = torch.logaddexp(scores.logsumexp(-1), self.sink[..., None])
        return (scores - total[..., None]).exp_()


@dataclass(frozen=True, eq=False)
class Memory:
    """What stands before the positions behind a cut in one layer, in R runs; None is what the layer holds."""

    # (R, K, g or 1, i, P), or what makes them of rows of T behind the cut, (R, K, g, n, L)
    values: Tensor | Callable[[Tensor], Tensor] | None = None
    keys: Tensor | None = None  # (R, K, i, d)
    seen: Tensor | None = None  # which positions are there, (R, K, i) bool


@dataclass(eq=False)
class Behind:
    """A model over the positions behind a cut of texts of one length, which it has read whole."""

    forward: Forward
    cut: int
    # Attention of each text whose T follows from what its function is given, by module; and why not, by name of others.
    held: dict[nn.Module, list[HeldAttention]] = field(default_factory=dict[nn.Module, list[HeldAttention]])
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
        self.refused[name] = f"is {seen.kind} in code of its own, or weighs keys by more than products with queries"
        if given is None or not isinstance(operator, SoftmaxAttention) or operator.key_bias is not None or seen.order:
            return False
        *parts, answer = given
        query, key, value = (part.to(operator.query.dtype) for part in parts)
        read = ((query, operator.query), (key, operator.key), (value, seen.values))
        # A layer whose heads read nothing in common may name no groups.
        same = all(torch.equal(a.repeat_interleave(query.shape[1] // a.shape[1], 1), b) for a, b in read)
        if seen.passed_on is not unchanged or not same:
            return False
        heads = key.shape[1], query.shape[1] // key.shape[1]
        form, query = (operator.scale, operator.window, operator.soft_cap), query.reshape(-1, *heads, *query.shape[2:])
        sink = None if operator.sink is None else operator.sink.expand(operator.batch_shape)[0].reshape(heads)
        known = [HeldAttention(name, self.cut, *each, *form, sink) for each in zip(query, key, value, count())]
        if all(self._answers(*each) for each in zip(known, answer, strict=True)):
            self.held[module] = known
            del self.refused[name]
        return module in self.held

    def _answers(self, held: HeldAttention, answer: Tensor) -> bool:
        """Whether attention gives what its function returned behind the cut, of (L, H, P)."""
        rows = held.rows(held.query[None, :, :, self.cut :], held.key[None])
        mixed = (rows.flatten(2, 3) @ held.value).reshape(-1, len(answer) - self.cut, held.value.shape[-1])
        return bool((mixed.transpose(0, 1) - answer[self.cut :]).abs().max() <= self._rounding * answer.abs().max())

    def settle(self, logits: Tensor, *, compare: bool = True) -> None:
        """Whether the runs are sure, if T of all mixers is known: compared with logits of the whole run if asked."""
        self._given.clear()
        if not self.refused and len(self.forward.args) == 1 and known_options(self.forward.model, position_ids=None):
            whole = torch.cat(self.logits(lambda _: Memory(), [1] * len(logits))) if compare else logits
            self.sure = bool((whole - logits).abs().max() <= self._rounding * logits.abs().max())

    def logits(self, remember: Callable[[HeldAttention], Memory], runs: Sequence[int] = (1,)) -> list[Tensor]:
        """Logits behind the cut without the last, (R, L − i − 1, V) float32 of R runs of each text."""
        forward, every = self.forward, torch.tensor(runs)
        texts = forward.args[0][:, self.cut :].repeat_interleave(every.to(forward.args[0].device), 0)
        positions = torch.arange(self.cut, forward.length, device=texts.device).expand(len(texts), -1)
        count = forward.length - self.cut
        options = known_options(forward.model, position_ids=positions, logits_to_keep=count)
        part = replace(forward, backbone=forward.model, args=(texts,), kwargs={**forward.kwargs, **options})

        def attend(_: str, function: Attend) -> Attend:
            return partial(self._attend, function, remember, runs)

        def attach(stack: ExitStack) -> None:
            stack.enter_context(replaced_attention(source_files(forward.parts), attend))

        return _split(cast("Tensor", part.hidden(attach=attach))[:, -count:-1].float(), runs)

    def each(
        self, wanted: Sequence[Sequence[Run]], remember: Callable[[HeldAttention, Sequence[Run]], Memory]
    ) -> Iterator[tuple[int, Run, Tensor]]:
        """Number of the text, run and logits of all runs that are wanted of each text, some at once."""
        rows = [(text, run) for text, runs in enumerate(wanted) for run in runs]
        at_once = max(1, POSITIONS // (self.forward.length - self.cut))
        for first in range(0, len(rows), at_once):
            some = [[run for text, run in rows[first : first + at_once] if text == at] for at in range(len(wanted))]
            together = self.logits(lambda held, some=some: remember(held, some[held.text]), [*map(len, some)])
            for text, (runs, logits) in enumerate(zip(some, together, strict=True)):
                yield from ((text, *pair) for pair in zip(runs, logits, strict=True))

    def _attend(
        self, function: Attend, remember: Callable[[HeldAttention], Memory], runs: Sequence[int], module: nn.Module,
        query: Tensor, key: Tensor, value: Tensor, *args: Any, **options: Any,
    ) -> Any:  # fmt: skip
        if module not in self.held:
            return function(module, query, key, value, *args, **options)
        # Modes of the run, such as a device by default, are not for what is computed here.
        with torch._C.DisableTorchFunction():  # pyright: ignore[reportPrivateUsage]
            given = zip(*(_split(part, runs) for part in (query, key, value)), strict=True)
            each = [(held, parts) for held, parts in zip(self.held[module], given, strict=True) if len(parts[0])]
            mixed = [_mixed(held, remember(held), *(part.to(held.key.dtype) for part in parts)) for held, parts in each]
        return torch.cat(mixed).flatten(1, 2).transpose(1, 2).to(query.dtype).contiguous(), None


def _split(together: Tensor, runs: Sequence[int]) -> list[Tensor]:
    return list(cast("Any", together).split([*runs]))


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
