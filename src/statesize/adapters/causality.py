"""Causality of a whole model: whether later tokens change what lies before them, and where that happens."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn

from statesize.adapters.check import seeded_otherwise
from statesize.adapters.forward import Forward
from statesize.adapters.models.model_state import device_of, position_axis, tensors_in
from statesize.adapters.models.precision import relative_difference
from statesize.adapters.other_inputs import other_futures
from statesize.adapters.runs import bare
from statesize.adapters.watch import Call, passages
from statesize.codes import Code, Note

CAUSES = (
    "Look for a mask that is missing, a mean or a norm over positions, an FFT whose input is not padded to twice its "
    "length, a pass over the reversed text, or a convolution that is padded on both sides."
)
_ENTERS, _LEAVES = "enters", "leaves"
_MEANS = {
    _ENTERS: "What enters this layer depends on later tokens: its ESS is that of its T, and no memory of the past "
    "alone.",
    _LEAVES: "What enters this layer does not depend on later tokens, but what it returns does: its ESS is that of "
    "its T, and no memory of the past alone.",
    "": "What enters this layer does not depend on later tokens: its ESS holds.",
}


def mixed_backwards(
    forward: Forward, calls: Sequence[Call], hidden: Tensor | None, around: Sequence[str], limit: float
) -> list[Note]:
    """Say of each call of a mixer how a model that is not causal reaches it; nothing where other tokens change no past.

    Args:
        forward: The model and its inputs.
        calls: The calls of its mixers.
        hidden: The last hidden state; None leaves out the runs with other tokens.
        around: Names of modules that mix positions backwards around what is measured in them.
        limit: The largest difference of the last hidden state that is rounding.

    Returns:
        A note for each call, or none.
    """
    changed = None if hidden is None else _changed_by_later_tokens(forward, calls, hidden, limit)
    if not around and changed is None:
        return []
    inner = [name for name in around if name != type(forward.model).__name__]
    told = f"positions are mixed backwards {_where(calls, changed, inner)}."
    if changed is None:
        return [Note(Code.NOT_CAUSAL, f"{told} What enters this layer may depend on later tokens.")] * len(calls)
    return [Note(Code.NOT_CAUSAL, f"{told} {_MEANS[first]}") for first in changed]


def _where(calls: Sequence[Call], changed: Sequence[str] | None, inner: Sequence[str]) -> str:
    """The module that mixes positions backwards, or between which layers that happens."""
    if inner:
        return f"in {inner[0]}{f' and {len(inner) - 1} more' if inner[1:] else ''}"
    if changed is None:
        return "somewhere"
    first = next((at for at, one in enumerate(changed) if one), len(calls))
    if _LEAVES in changed[first : first + 1]:
        return f"in {calls[first].labels[0]}"
    bounds = [("after", calls[first - 1 : first]), ("before", calls[first : first + 1])]
    return " and ".join(f"{side} {one.labels[0]}" for side, some in bounds for one in some)


def _changed_by_later_tokens(forward: Forward, calls: Sequence[Call], hidden: Tensor, limit: float) -> list[str] | None:
    """Find for each call whether later tokens change its inputs, else its output; None where they change no result."""
    axis = _leaving_axis(forward, forward.model, hidden) if bool(hidden.isfinite().all()) else None
    others = [(cut, forward.with_texts(change)) for cut, change in other_futures(forward.length)]
    # Noise must not be the same each time.
    seeded = partial(seeded_otherwise, device_of(forward.model))
    ends = [(cut, other.hidden(bare, attach=seeded)) for cut, other in others] if axis is not None else []
    if axis is None or all(end is None or _before(hidden, end, axis, cut) <= limit for cut, end in ends):
        return None
    plain, found = _passed(forward, calls), [set[str]() for _ in calls]
    for cut, other in others:
        for kinds, one, two in zip(found, plain, _passed(other, calls), strict=True):
            for kind, first, second in zip((_ENTERS, _LEAVES), one, two, strict=True):
                pairs = zip(first, second, strict=False)
                if any(at is not None and _before(a, b, at, cut) > limit for (a, at), (b, _) in pairs):
                    kinds.add(kind)
    return [next((kind for kind in (_ENTERS, _LEAVES) if kind in kinds), "") for kinds in found]


def _leaving_axis(forward: Forward, module: nn.Module, returned: Tensor) -> int | None:
    placed = forward.placed.get(module)
    return position_axis(returned, forward.length) if placed is None else placed.leaving


_Placed = tuple[list[tuple[Tensor, int | None]], list[tuple[Tensor, int | None]]]
"""The real tensors that enter a call, and what leaves it, with their dimensions of positions."""


def _passed(forward: Forward, calls: Sequence[Call]) -> list[_Placed]:
    """The inputs and the output of each call in a run."""
    _, passed = passages(forward, dict.fromkeys(call.module for call in calls), torch.clone)
    found = list[_Placed]()
    for call in calls:
        seen, placed = passed[call.module].pop(0), forward.placed.get(call.module)
        taken = tensors_in((seen.args, seen.kwargs), real=False)
        axes = [position_axis(one, forward.length) for one in taken] if placed is None else placed.entering
        entering = [pair for pair in zip(taken, axes, strict=False) if pair[0].is_floating_point()]
        left = [] if seen.output is None else [(seen.output, _leaving_axis(forward, call.module, seen.output))]
        found.append((entering, left))
    return found


def _before(one: Tensor, other: Tensor, axis: int, cut: int) -> float:
    """The largest difference before a position, relative to the largest value."""
    if one.shape != other.shape:
        return float("inf")
    earlier = [tensor.narrow(axis, 0, cut) for tensor in (one, other)]
    return relative_difference(earlier[1], earlier[0])
