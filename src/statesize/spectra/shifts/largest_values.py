"""The largest singular value of blocks H_i between two numbers, by the power method on many positions at once.

From below σ_1 ≥ ‖H x‖ for ‖x‖ = 1; from above, where H has no negative entries, by Collatz and Wielandt,
σ_1² ≤ max_j (Hᵀ H x)_j / x_j for every x > 0 (Horn and Johnson, Matrix Analysis, corollary 8.1.31). Sums of numbers
that are not negative lose at most eps a term, so for those single precision is enough for certified bounds of 1e-3.
Between two positions H_i loses a row and gains a column: σ_1² falls by at most ‖row‖² and grows by at most ‖column‖².
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor

from statesize.spectra.spectrum import UNDERFLOW

# Positions whose products are taken together.
_TOGETHER = 32
# Distances from the ends of the sequence, where σ_1 changes fast, below which every position and every other is taken.
_ALL, _EVERY_OTHER = 32, 96
# Below this share of the largest entry of T, squares vanish in single precision.
_SMALLEST = 1e-9


def sampled_positions(length: int, every: int) -> Tensor:
    """Some of the positions 1 … L − 1, more of them near the ends."""
    position = torch.arange(1, length)
    distance = torch.minimum(position, length - position)
    close = (distance < _ALL) | ((distance < _EVERY_OTHER) & (position % 2 == 0))
    return position[close | (position % every == 0)]


def largest_everywhere(strict: Tensor, every: int, close: float) -> tuple[Tensor, Tensor]:
    """σ_1 of T (r L, L), strictly lower, not negative, between two numbers (L,), close at every so many positions."""
    # As close as requested there, or as near as single precision and a few steps come.
    length = strict.shape[-1]
    low, high = strict.new_zeros(length), strict.new_full((length,), torch.inf)
    high[0] = 0
    positions = sampled_positions(length, every).to(strict.device)
    low[positions], high[positions] = largest_at(strict.float(), positions, close, steps=8)
    return _carried(strict, low, high)


def largest_at(strict: Tensor, positions: Tensor, close: float, steps: int) -> tuple[Tensor, Tensor]:
    """σ_1 between two numbers in float64 at ascending positions (m,) of T (r L, L); negative entries leave ∞ above."""
    signed = bool((strict < 0).any())
    parts = cast("Sequence[Tensor]", positions.split(_TOGETHER) if positions.numel() else ())
    none = strict.new_zeros(0, dtype=torch.float64)
    bounds = [(none, none), *(_power(strict, part, close, steps, signed) for part in parts)]
    return torch.cat([low for low, _ in bounds]), torch.cat([high for _, high in bounds])


def _power(matrix: Tensor, positions: Tensor, close: float, steps: int, signed: bool) -> tuple[Tensor, Tensor]:
    length, first, last = matrix.shape[-1], int(positions[0]), int(positions[-1])
    readouts = matrix.shape[-2] // length
    info = torch.finfo(matrix.dtype)
    slack = 2 * matrix.shape[-2] * info.eps
    smallest = UNDERFLOW if matrix.dtype == torch.float64 else _SMALLEST
    vanished = smallest**2
    block = matrix[readouts * first :, :last]
    cuts = positions[:, None]
    past = (torch.arange(last, device=matrix.device) < cuts).to(matrix.dtype)
    future = (torch.arange(first, length, device=matrix.device).repeat_interleave(readouts) >= cuts).to(matrix.dtype)
    vector = _start(matrix, block, readouts, int(positions[positions.shape[0] // 2]), future) * past
    vector = past * vector.abs().amax().clamp(min=info.tiny) + vector if signed else _positive(vector, past, 1e-4)
    low = torch.zeros(positions.shape, dtype=torch.float64, device=matrix.device)
    high = torch.full_like(low, torch.inf)
    for _ in range(steps):
        # In two steps, as the squares of σ² vanish long before σ does.
        vector = vector / vector.abs().amax(-1, keepdim=True).clamp(min=info.tiny)
        vector = vector / vector.square().sum(-1, keepdim=True).sqrt().clamp(min=info.tiny)
        image = (vector @ block.mT) * future
        back = (image @ block) * past
        norm = image.square().sum(-1).double().sqrt() * (1 - slack)
        low = torch.maximum(low, torch.where(norm > smallest, norm, 0))
        if signed:
            vector = back
            continue
        quotient = torch.where(past > 0, back / vector, 0).amax(-1).double()
        high = torch.minimum(high, (quotient + vanished).sqrt() * (1 + slack))
        if bool((high <= (1 + close) * low).all()):
            break
        vector = _positive(back, past, 1e-6)
    return low, high


def _start(matrix: Tensor, block: Tensor, readouts: int, middle: int, future: Tensor) -> Tensor:
    """A vector for every position from two products at the middle one, (m, columns)."""
    here = matrix[readouts * middle :, :middle]
    column = torch.ones(middle, dtype=matrix.dtype, device=matrix.device)
    column = here.mT @ (here @ column)
    column = column / column.amax().clamp(min=torch.finfo(column.dtype).tiny)
    return (future * (block[:, :middle] @ column)) @ block


def _positive(vector: Tensor, past: Tensor, share: float) -> Tensor:
    # No entry may vanish, or its quotient would say nothing; where H is 0, any vector serves.
    largest = vector.amax(-1, keepdim=True)
    return torch.where(largest > 0, vector / largest, torch.ones_like(vector)).clamp(min=share) * past


def _carried(strict: Tensor, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """Bounds (L,) with those that follow from other positions."""
    square = strict.square()
    # H_{i+1} is H_i without the rows of i, with the column i.
    sums = square.sum(-1).reshape(strict.shape[-1], -1).sum(-1), square.sum(-2)
    rows, columns = (torch.cat([part.new_zeros(1), part.cumsum(0)[:-1]]) for part in sums)
    doubt = 8 * strict.shape[-2] * torch.finfo(torch.float64).eps
    gained, lost = columns[-1] * doubt, rows[-1] * doubt
    upper, lower = high.square(), low.square()
    from_left = (upper - columns).cummin(0).values + columns + gained
    from_right = (upper + rows).flip(0).cummin(0).values.flip(0) - rows + lost
    least_left = (lower + rows).cummax(0).values - rows - lost
    least_right = (lower - columns).flip(0).cummax(0).values.flip(0) + columns - gained
    low = torch.maximum(low, torch.maximum(least_left, least_right).clamp(min=0).sqrt())
    return low, torch.minimum(high, torch.minimum(from_left, from_right).clamp(min=0).sqrt())
