"""Causality of a whole model: whether later tokens change what it returns before them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from torch import Tensor

from statesize.adapters.check import seeded_otherwise
from statesize.adapters.forward import Forward
from statesize.adapters.models.model_state import device_of, position_axis
from statesize.adapters.models.precision import relative_difference
from statesize.adapters.other_inputs import other_futures
from statesize.adapters.runs import bare
from statesize.codes import Code, Note

CAUSES = (
    "Look for a mask that is missing, a mean or a norm over positions, an FFT whose input is not padded to twice its "
    "length, a pass over the reversed text, or a convolution that is padded on both sides."
)


def mixed_backwards(forward: Forward, hidden: Tensor | None, around: Sequence[str], limit: float) -> Note | None:
    """The note on a model that is not causal; None where other tokens change no past."""
    # hidden: The last hidden state; None leaves out the runs with other tokens. around: Names of modules that mix
    # positions backwards around what is measured in them. limit: The largest difference of it that is rounding.
    if not around and (hidden is None or not _later_tokens_change(forward, hidden, limit)):
        return None
    inside = [name for name in around if name != type(forward.model).__name__]
    more = f" and {len(inside) - 1} more" if inside[1:] else ""
    where = f" in {inside[0]}{more}" if inside else ""
    advice = "What enters this layer may depend on later tokens; its ESS is then no memory of the past alone."
    return Note(Code.NOT_CAUSAL, f"positions are mixed backwards{where}. {advice}")


def _later_tokens_change(forward: Forward, hidden: Tensor, limit: float) -> bool:
    """Whether tokens from a cut on change the last hidden state before it."""
    placed = forward.placed.get(forward.model)
    axis = position_axis(hidden, forward.length) if placed is None else placed.leaving
    if axis is None or not bool(hidden.isfinite().all()):
        return False
    # Noise must not be the same each time.
    seeded = partial(seeded_otherwise, device_of(forward.model))
    for cut, change in other_futures(forward.length):
        other = forward.with_texts(change).hidden(bare, attach=seeded)
        if other is None:
            continue
        earlier = (tensor.narrow(axis, 0, cut) for tensor in (other, hidden))
        if other.shape != hidden.shape or not relative_difference(*earlier) <= limit:
            return True
    return False
