"""The largest singular value of blocks H_i between two numbers, by the power method on many positions at once.

From below σ_1 ≥ ‖H x‖ for ‖x‖ = 1; from above, where H has no negative entries, by Collatz and Wielandt,
σ_1² ≤ max_j (Hᵀ H x)_j / x_j for every x > 0 (Horn and Johnson, Matrix Analysis, corollary 8.1.31). Sums of numbers
that are not negative lose at most eps a term, so for those single precision is enough for certified bounds of 1e-3.
Between two positions H_i loses a row and gains a column: σ_1² falls by at most ‖row‖² and grows by at most ‖column‖².
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor

from statesize.spectra.spectrum import UNDERFLOW

# Positions whose products are taken together, and numbers of operators whose products are.
_TOGETHER, _NUMBERS = 32, 2**21
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
    """σ_1 of T (E, r L, L), strictly lower, not negative, between two numbers (E, L), close at some positions."""
    # At one in `every` and more near the ends, as near as single precision and a few steps come.
    length = strict.shape[-1]
    positions = sampled_positions(length, every).to(strict.device)
    at_once = max(1, _NUMBERS // max(1, strict.shape[-2] * length))
    bounds: list[tuple[Tensor, Tensor]] = []
    for part in cast("Sequence[Tensor]", strict.split(at_once)):
        low = part.new_zeros(len(part), length)
        high = torch.full_like(low, torch.inf)
        high[:, 0] = 0
        low[:, positions], high[:, positions] = largest_at(part.float(), positions, close, steps=8)
        bounds.append(_carried(part, low, high))
    low, high = zip(*bounds, strict=True)
    return torch.cat(low), torch.cat(high)


def largest_at(strict: Tensor, positions: Tensor, close: float, steps: int) -> tuple[Tensor, Tensor]:
    """σ_1 of T (E, r L, L) without negative entries between two numbers (E, m), at ascending positions (m,)."""
    parts = cast("Sequence[Tensor]", positions.split(_TOGETHER) if positions.numel() else ())
    none = strict.new_zeros(len(strict), 0, dtype=torch.float64)
    bounds = [(none, none), *(_power(strict, part, close, steps) for part in parts)]
    low, high = zip(*bounds, strict=True)
    return torch.cat(low, -1), torch.cat(high, -1)


def _power(matrix: Tensor, positions: Tensor, close: float, steps: int) -> tuple[Tensor, Tensor]:
    length, first, last = matrix.shape[-1], int(positions[0]), int(positions[-1])
    readouts = matrix.shape[-2] // length
    info = torch.finfo(matrix.dtype)
    slack = 2 * matrix.shape[-2] * info.eps
    smallest = UNDERFLOW if matrix.dtype == torch.float64 else _SMALLEST
    block = matrix[:, readouts * first :, :last]
    cuts = positions[:, None]
    past = (torch.arange(last, device=matrix.device) < cuts).to(matrix.dtype)
    outside = 1 - past
    future = (torch.arange(first, length, device=matrix.device).repeat_interleave(readouts) >= cuts).to(matrix.dtype)
    vector = _positive(_start(matrix, block, readouts, int(positions[len(positions) // 2]), future) * past, past, 1e-4)
    low = torch.zeros(vector.shape[:-1], dtype=torch.float64, device=matrix.device)
    high = torch.full_like(low, torch.inf)
    for _ in range(steps):
        # The largest entry is 1, so no square of what matters vanishes.
        vector = vector / _norm(vector)
        image = (vector @ block.mT).mul_(future)
        back = (image @ block).mul_(past)
        norm = _norm(image).squeeze(-1).double() * (1 - slack)
        low = torch.maximum(low, torch.where(norm > smallest, norm, 0))
        quotient = (back / (vector + outside)).amax(-1).double()
        high = torch.minimum(high, (quotient + smallest**2).sqrt() * (1 + slack))
        if bool((high <= (1 + close) * low).all()):
            break
        vector = _positive(back, past, 1e-6)
    return low, high


def _norm(vector: Tensor) -> Tensor:
    return cast("Any", torch.linalg).vector_norm(vector, dim=-1, keepdim=True)


def _start(matrix: Tensor, block: Tensor, readouts: int, middle: int, future: Tensor) -> Tensor:
    """A vector for every position from two products at the middle one, (E, m, columns)."""
    here = matrix[:, readouts * middle :, :middle]
    column = here.mT @ here.sum(-1, keepdim=True)
    column = column / column.amax(-2, keepdim=True).clamp(min=torch.finfo(column.dtype).tiny)
    return (future * (block[..., :middle] @ column).mT) @ block


def _positive(vector: Tensor, past: Tensor, share: float) -> Tensor:
    # No entry may vanish, or its quotient would say nothing; where H is 0, any vector serves.
    largest = vector.amax(-1, keepdim=True)
    return torch.where(largest > 0, vector / largest, torch.ones_like(vector)).clamp(min=share) * past


def _carried(strict: Tensor, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """Bounds (E, L) with those that follow from other positions."""
    square = strict.square()
    # H_{i+1} is H_i without the rows of i, with the column i.
    sums = square.sum(-1).reshape(len(strict), strict.shape[-1], -1).sum(-1), square.sum(-2)
    rows, columns = (torch.cat([part.new_zeros(len(part), 1), part.cumsum(-1)[:, :-1]], -1) for part in sums)
    doubt = 8 * strict.shape[-2] * torch.finfo(torch.float64).eps
    gained, lost = columns[:, -1:] * doubt, rows[:, -1:] * doubt
    upper, lower = high.square(), low.square()
    from_left = (upper - columns).cummin(-1).values + columns + gained
    from_right = (upper + rows).flip(-1).cummin(-1).values.flip(-1) - rows + lost
    least_left = (lower + rows).cummax(-1).values - rows - lost
    least_right = (lower - columns).flip(-1).cummax(-1).values.flip(-1) + columns - gained
    low = torch.maximum(low, torch.maximum(least_left, least_right).clamp(min=0).sqrt())
    return low, torch.minimum(high, torch.minimum(from_left, from_right).clamp(min=0).sqrt())
