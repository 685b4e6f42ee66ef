"""A model runs over positions behind a cut alone, where it reads those before only as keys and values of attention."""

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
from statesize.adapters.models.model_state import NamedModules, known_options
from statesize.adapters.observation import Observation, Units, unchanged
from statesize.adapters.replaced import source_files
from statesize.operators import Operator, SoftmaxAttention

Behind = Callable[[Observation], Tensor]
"""What attention passes on behind the cut, (1, H, L − i, P), given what it would mix whole."""

# Rounding of attention and of logits in float32, as a share of the largest number.
_ROUNDING = 1e-4


@dataclass(frozen=True, eq=False)
class KnownAttention:
    """Attention whose T follows from what its function is given.

    Attributes:
        seen: What it mixes, of these queries, keys and values.
        query: That of the whole text, (1, H, L, d); behind the cut that of the last run, as of the others.
        key: As many keys.
        values: As many values.
    """

    seen: Observation
    query: Tensor
    key: Tensor
    values: Tensor

    def continued(self, *given: Tensor) -> Observation:
        """What it mixes, if its function is given these queries, keys and values of the last positions."""
        for whole, part in zip((self.query, self.key, self.values), given, strict=True):
            # Heads of a group read the same keys and values.
            heads = whole.view(1, part.shape[1], -1, *whole.shape[2:])
            heads[..., -part.shape[2] :, :] = part[:, :, None]
        return self.seen


@dataclass(eq=False)
class Continuation:
    """A model over positions behind a cut, in several runs over one text that the model has read whole.

    Attributes:
        cut: Position i.
        length: Positions L of the text.
        known: Attention whose T follows from what its function is given.
        sure: Whether the model was seen to return the same without what it computes before.
    """

    cut: int
    length: int
    known: dict[nn.Module, KnownAttention] = field(default_factory=dict[nn.Module, KnownAttention], init=False)
    sure: bool = field(default=False, init=False)
    _given: dict[nn.Module, tuple[Tensor, ...]] = field(default_factory=dict[nn.Module, tuple[Tensor, ...]], init=False)
    _names: set[str] = field(default_factory=set[str], init=False)

    def attach(self, parts: NamedModules, stack: ExitStack) -> None:
        """See what attention functions of a model are given and return in a run over the whole text."""

        def attending(_: str, function: Attend) -> Attend:
            def attend(module: nn.Module, query: Tensor, key: Tensor, value: Tensor, *args: Any, **options: Any) -> Any:
                result = function(module, query, key, value, *args, **options)
                # Whoever observes it may call it again, with values of its own.
                self._given.setdefault(module, (query, key, value, result[0]))
                return result

            return attend

        stack.enter_context(replaced_attention(source_files(parts), attending))

    def note(self, module: nn.Module, name: str, seen: Observation) -> None:
        """Know T of a mixer if that is the attention of what its function was given, and gives its answer."""
        given, operator = self._given.pop(module, None), seen.operator(slice(None))
        if given is None or not isinstance(operator, SoftmaxAttention) or operator.key_bias is not None:
            return
        *given, answer = given
        if not all(len(part) == 1 and part.shape[2] == self.length for part in given):
            return
        options = {"scale": operator.scale, "window": operator.window, "soft_cap": operator.soft_cap}
        attention = partial(SoftmaxAttention, **options, sink=operator.sink, checked=True)
        query, key, values = (part.repeat_interleave(given[0].shape[1] // part.shape[1], 1) for part in given)
        pairs = ((query, operator.query), (key, operator.key), (values, seen.values))
        if seen.passed_on is not unchanged or not all(a.dtype == b.dtype and torch.equal(a, b) for a, b in pairs):
            return

        def of_units(units: Units) -> Operator:
            return attention(query, key)[:, units]

        seen = replace(seen, operator=of_units, values=values, mixed=values)
        rows = mixed_behind(self.cut, seen).transpose(1, 2)
        if bool((rows - answer[:, self.cut :]).abs().max() <= _ROUNDING * answer.abs().max()):
            self.known[module] = KnownAttention(seen, query, key, values)
            self._names.add(name)

    def settle(self, forward: Forward, logits: Tensor, names: Collection[str]) -> None:
        """Compare the model with its logits behind the cut in the run over the whole text, if T of all is known."""
        self._given.clear()
        if self._names == set(names) and len(forward.args) == 1 and known_options(forward.model, position_ids=None):
            difference = (self.logits(forward, partial(mixed_behind, self.cut)) - logits).abs().max()
            self.sure = bool(difference <= _ROUNDING * logits.abs().max())
        if not self.sure:
            self.known.clear()

    def logits(self, forward: Forward, behind: Behind) -> Tensor:
        """Logits from the cut on without the last."""
        positions = torch.arange(self.cut, self.length, device=forward.args[0].device)[None]
        options = known_options(forward.model, position_ids=positions, logits_to_keep=self.length - self.cut)
        ids, kwargs = forward.args[0][:, self.cut :], {**forward.kwargs, **options}
        part = replace(forward, backbone=forward.model, args=(ids,), kwargs=kwargs)

        def attach(stack: ExitStack) -> None:
            stack.enter_context(replaced_attention(source_files(forward.parts), partial(self._attending, behind)))

        return cast("Tensor", part.hidden(attach=attach))[0, :-1].float()

    def _attending(self, behind: Behind, _: str, function: Attend) -> Attend:
        def attend(module: nn.Module, query: Tensor, key: Tensor, value: Tensor, *args: Any, **options: Any) -> Any:
            if (known := self.known.get(module)) is None:
                return function(module, query, key, value, *args, **options)
            # Modes of the run, such as a device by default, are not for what is computed here.
            with torch._C.DisableTorchFunction():  # pyright: ignore[reportPrivateUsage]
                return behind(known.continued(query, key, value)).transpose(1, 2).contiguous(), None

        return attend


def rows_behind(attention: SoftmaxAttention, cut: int) -> Tensor:
    """Rows of T behind a cut, (..., L − i, L)."""
    return attention.block(slice(cut, attention.length), slice(0, attention.length))


def mixed_behind(cut: int, seen: Observation) -> Tensor:
    """What attention passes on behind a cut, (1, H, L − i, P)."""
    return rows_behind(cast("SoftmaxAttention", seen.operator(slice(None))), cut) @ seen.values
