"""What round-off does to square-root factors that are carried from chunk to chunk of a recurrence.

As for the square-root engine, with a chunk in the place of a step: what is lost in chunk k, at most
ε(‖Φ‖‖L‖ + ‖Φ(i1, s) B_s‖) on L after it, meets at most ‖S‖ of the future, wherever it is looked at.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from statesize.spectra.bounds import carried_error
from statesize.spectra.factorisation import frobenius_norm


class Sizes(NamedTuple):
    """Norms of what a chunk is made of, (..., c) each."""

    gain: Tensor  # ‖Φ‖
    shown: Tensor  # ‖C_t Φ(t, i0)‖_F
    written: Tensor  # ‖Φ(i1, s) B_s‖_F
    inside: Tensor  # of the sums that make T inside, where that may be more than the product of the two before

    def or_more(self, other: Sizes) -> Sizes:
        """The larger ones."""
        return Sizes(*map(torch.maximum, self, other))


class CarriedErrors(NamedTuple):
    """What round-off may have added to factors, in the Frobenius norm, (..., c) each."""

    past: Tensor  # to L after each chunk
    future: Tensor  # to S before each chunk
    every: Tensor  # to any singular value, all chunks together, (..., 1)


def chunk_sizes(observability: Tensor, reachability: Tensor, transition: Tensor) -> Sizes:
    """Sizes of chunks as they are."""
    gain = (transition.abs().sum(-1).amax(-1) * transition.abs().sum(-2).amax(-1)).sqrt()
    return Sizes(gain, frobenius_norm(observability), frobenius_norm(reachability), torch.zeros_like(gain))


def sizes_before_erasing(key: Tensor, decay: Tensor, B: Tensor, C: Tensor) -> Sizes:
    """Sizes of a delta rule before it takes away what was stored: what is left is rounded like what was there."""
    # Of the tensors that `delta_chunks` takes, (..., c, b, n) each.
    return sizes_by_gain((1 - (B * key).sum(-1)).abs().clamp(min=1) * decay.abs().amax(-1), B, C)


def sizes_by_gain(gain: Tensor, B: Tensor, C: Tensor) -> Sizes:
    """Sizes of sums that cancel, from a bound on ‖A_t‖ and on what it adds, (..., c, b)."""
    written, shown = (part.square().sum(-1) for part in (B, C))
    before, after = gain.cumprod(-1).square(), gain.flip(-1).cumprod(-1).flip(-1).square()
    after = torch.nn.functional.pad(after[..., 1:], (0, 1), value=1.0)
    inside = (written.sum(-1) * shown.sum(-1)).sqrt() * gain.clamp(min=1).prod(-1)
    return Sizes(gain.prod(-1), (shown * before).sum(-1).sqrt(), (written * after).sum(-1).sqrt(), inside)


def carried_errors(L_norm: Tensor, S_norm: Tensor, sizes: Sizes, epsilon: float) -> CarriedErrors:
    """From ‖L‖_F before and ‖S‖_F after each chunk, (..., c) each."""
    past_step = epsilon * (sizes.gain * L_norm + sizes.written)
    future_step = epsilon * (sizes.shown + S_norm * sizes.gain)
    return CarriedErrors(
        carried_error(sizes.gain, past_step),
        carried_error(sizes.gain.flip(-1), future_step.flip(-1)).flip(-1),
        (past_step * S_norm + future_step * L_norm).sum(-1, keepdim=True),
    )
