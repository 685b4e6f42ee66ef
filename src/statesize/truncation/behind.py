"""Runs of a model over the positions behind a cut alone, where it reads those before only by attention."""

from __future__ import annotations

from collections.abc import Callable, Collection
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
from statesize.operators import SoftmaxAttention
from statesize.truncation.choices.choice import HeldAttention

# Rounding of attention and of logits in float32, as a share of the largest number.
_ROUNDING = 1e-4
POSITIONS = 512
"""Positions that several runs read at once: more are hardly faster."""


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
    """A model over the positions behind a cut, in several runs over one text that it has read whole."""

    forward: Forward
    cut: int
    # Attention whose T follows from what its function is given, by module; and names of mixers of which it does not.
    held: dict[nn.Module, HeldAttention] = field(default_factory=dict[nn.Module, HeldAttention], init=False)
    unknown: set[str] = field(default_factory=set[str], init=False)
    # Whether T of all mixers is known so, and the model returns the same without what it computes before.
    sure: bool = field(default=False, init=False)
    _given: dict[nn.Module, tuple[Tensor, ...]] = field(default_factory=dict[nn.Module, tuple[Tensor, ...]], init=False)

    @property
    def _rounding(self) -> float:
        return _ROUNDING if stored_dtype(self.forward.model).itemsize >= torch.float32.itemsize else MOST_ROUNDED

    def attach(self, stack: ExitStack) -> None:
        """See what attention functions are given and return in a run over the whole text."""

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
        if given is None or not isinstance(operator, SoftmaxAttention) or operator.key_bias is not None:
            return False
        *parts, answer = given
        if not all(len(part) == 1 and part.shape[2] == self.forward.length for part in parts):
            return False
        query, key, value = (part[0].to(operator.query.dtype) for part in parts)
        caches, heads = len(key), len(query) // len(key)
        mixed = ((query, operator.query), (key, operator.key), (value, seen.values))
        # A layer whose heads read nothing in common may name no groups.
        same = all(torch.equal(a.repeat_interleave(len(query) // len(a), 0), b[0]) for a, b in mixed)
        if seen.passed_on is not unchanged or not same:
            return False
        sink = operator.sink if operator.sink is None else operator.sink.reshape(caches, heads)
        query = query.reshape(caches, heads, *query.shape[1:])
        known = HeldAttention(
            name, self.cut, query, key, value, operator.scale, operator.window, operator.soft_cap, sink
        )
        rows = known.rows(query[None, :, :, self.cut :], key[None])
        found = (rows.flatten(2, 3) @ value).reshape(caches * heads, -1, value.shape[-1]).transpose(0, 1)
        if not bool((found - answer[0, self.cut :]).abs().max() <= self._rounding * answer.abs().max()):
            return False
        self.held[module] = known
        return True

    def settle(self, logits: Tensor, names: Collection[str], *, compare: bool = True) -> None:
        """Whether the runs are sure, if T of all mixers is known: compared with logits of the whole run if asked."""
        self._given.clear()
        self.unknown = set(names) - {one.name for one in self.held.values()}
        if not self.unknown and len(self.forward.args) == 1 and known_options(self.forward.model, position_ids=None):
            difference = (self.logits(lambda _: Memory())[0] - logits).abs().max() if compare else logits.new_zeros(())
            self.sure = bool(difference <= self._rounding * logits.abs().max())
        if not self.sure:
            self.held.clear()

    def logits(self, remember: Remember, runs: int = 1, last: int = 0) -> Tensor:
        """Logits behind the cut without the last, (R, n − 1, V) float32; of so many positions only, 0 for all."""
        forward, length = self.forward, self.forward.length
        positions = torch.arange(self.cut, length, device=forward.args[0].device).expand(runs, -1)
        count = last + 1 if last else length - self.cut
        options = known_options(forward.model, position_ids=positions, logits_to_keep=count)
        ids, kwargs = forward.args[0][:, self.cut :].expand(runs, -1), {**forward.kwargs, **options}
        part = replace(forward, backbone=forward.model, args=(ids,), kwargs=kwargs)

        def attach(stack: ExitStack) -> None:
            stack.enter_context(replaced_attention(source_files(forward.parts), partial(self._attending, remember)))

        return cast("Tensor", part.hidden(attach=attach))[:, -count:-1].float()

    def _attending(self, remember: Remember, _: str, function: Attend) -> Attend:
        def attend(module: nn.Module, query: Tensor, key: Tensor, value: Tensor, *args: Any, **options: Any) -> Any:
            if (held := self.held.get(module)) is None:
                return function(module, query, key, value, *args, **options)
            # Modes of the run, such as a device by default, are not for what is computed here.
            with torch._C.DisableTorchFunction():  # pyright: ignore[reportPrivateUsage]
                mixed = _mixed(held, remember(held), *(part.to(held.key.dtype) for part in (query, key, value)))
            return mixed.flatten(1, 2).transpose(1, 2).to(query.dtype).contiguous(), None

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
