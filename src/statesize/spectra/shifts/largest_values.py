"""The largest singular value of every block H_i of a matrix, by the power method on many positions at once.

From below by ‖H x‖ for ‖x‖ = 1, from above, where H has no negative entries, by Collatz and Wielandt:
σ_1² ≤ max_j (Hᵀ H x)_j / x_j for every x > 0 (Horn and Johnson, Matrix Analysis, corollary 8.1.31).
"""

from __future__ import annotations

import torch
from torch import Tensor

# Products with Hᵀ H, at the most, and the relative distance of the bounds at which a range of positions is left.
_STEPS, _CLOSE = 12, 1e-4
# Relative round-off of a norm or of a quotient.
_SLACK = 1e-12


def largest_between(strict: Tensor, at_once: int = 64) -> tuple[Tensor, Tensor]:
    """σ_1 of every position of T below its diagonal (E, L, L), 0 included, between two numbers, (E, L) each."""
    # The upper one is infinite where H has negative entries, and NaN where H is 0.
    length = strict.shape[-1]
    low, high = strict.new_zeros(strict.shape[:2]), strict.new_full(strict.shape[:2], torch.inf)
    for first in range(0, length, at_once):
        last = min(first + at_once, length)
        block = strict[:, first:, :last]
        place = torch.arange(first, last, device=strict.device)[:, None]
        past = (torch.arange(last, device=strict.device) < place).to(strict.dtype)
        future = (torch.arange(first, length, device=strict.device) >= place).to(strict.dtype)
        signed = (block < 0).any()
        vector = past.expand(strict.shape[0], -1, -1)
        for _ in range(_STEPS):
            # In two steps, as the squares of σ² vanish long before σ does.
            vector = vector / vector.abs().amax(-1, keepdim=True).clamp(min=torch.finfo(low.dtype).tiny)
            vector = vector / vector.square().sum(-1, keepdim=True).sqrt().clamp(min=torch.finfo(low.dtype).tiny)
            image = (vector @ block.mT) * future
            back = (image @ block) * past
            norm = image.square().sum(-1).sqrt()
            low[:, first:last] = torch.maximum(low[:, first:last], norm)
            if not signed:
                ratio = torch.where(past > 0, back / vector, 0.0).amax(-1)
                high[:, first:last] = torch.minimum(high[:, first:last], (1 + _SLACK) * ratio.sqrt())
            if bool((high[:, first:last] <= (1 + _CLOSE) * low[:, first:last]).all()):
                break
            # No entry may vanish, or its quotient would say nothing.
            floor = 1e-9 * back.amax(-1, keepdim=True)
            vector = back if signed else torch.maximum(back, floor) * past
    return low * (1 - _SLACK), high
