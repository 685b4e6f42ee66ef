"""The largest singular value of blocks H_i between two numbers, by the power method from one position to the next.

From below σ_1 ≥ ‖H x‖ for ‖x‖ = 1; from above, where H has no negative entries, by Collatz and Wielandt,
σ_1² ≤ max_j (Hᵀ H x)_j / x_j for every x > 0 (Horn and Johnson, Matrix Analysis, corollary 8.1.31). Sums of numbers
that are not negative lose at most eps a term, so for those single precision is enough for certified bounds of 1e-3.
Between two positions H_i loses a row and gains a column: σ_1² falls by at most ‖row‖² and grows by at most ‖column‖².
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any, cast

import numba
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from statesize.spectra.spectrum import UNDERFLOW

Array = npt.NDArray[Any]

# Positions whose products are taken together, and numbers of operators that are held in single precision at once.
_TOGETHER, _NUMBERS = 4, 2**21
# Distances from the ends of the sequence, where σ_1 changes fast, below which every position and every other is taken.
_ALL, _EVERY_OTHER = 32, 96
# Below this share of the largest entry of T, squares vanish in single precision.
_SMALLEST = 1e-9
# What entries of a vector that are smaller beside its largest are raised to.
_LEAST = 1e-6

_FAST = {"contract", "reassoc", "nnan", "nsz"}
_compile = partial(cast("Any", numba).njit, nogil=True, fastmath=_FAST, error_model="numpy")


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
        low[:, positions], high[:, positions] = largest_at(part.float(), positions, close, steps=12)
        is_close = bool((high[:, 1:] <= (1 + close) * low[:, 1:]).all())
        bounds.append((low, high) if is_close else _carried(part, low, high))
    low, high = zip(*bounds, strict=True)
    return torch.cat(low), torch.cat(high)


def largest_at(strict: Tensor, positions: Tensor, close: float, steps: int) -> tuple[Tensor, Tensor]:
    """σ_1 of T (E, r L, L) without negative entries between two numbers (E, m), at ascending positions (m,)."""
    low = torch.zeros(len(strict), len(positions), dtype=torch.float64)
    high = torch.full_like(low, torch.inf)
    smallest = UNDERFLOW if strict.dtype == torch.float64 else _SMALLEST
    slack = 2 * strict.shape[-2] * torch.finfo(strict.dtype).eps
    _climb(strict.cpu().numpy(), positions.cpu().numpy(), close, steps, slack, smallest, low.numpy(), high.numpy())
    return low.to(strict.device), high.to(strict.device)


@_compile(cache=True)
def _climb(
    strict: Array, positions: Array, close: float, steps: int, slack: float, smallest: float, low: Array, high: Array
) -> None:
    # Some positions share each reading of T, and start from the vector of the last one before them.
    E, rows, length = strict.shape
    number = strict.dtype.type
    least, start = number(_LEAST), np.empty(length, strict.dtype)
    vectors, backs = np.empty((_TOGETHER, length), strict.dtype), np.empty((_TOGETHER, length), strict.dtype)
    norms = np.empty(_TOGETHER)
    for e in range(E):
        start[:] = least
        for begin in range(0, len(positions), _TOGETHER):
            cuts = positions[begin : begin + _TOGETHER]
            if begin == 0:
                start[: cuts[0]] = number(1)
            for m in range(len(cuts)):
                vectors[m] = start
            for _ in range(steps):
                _products(strict[e], cuts, rows // length, vectors, backs, norms)
                is_close = True
                for m in range(len(cuts)):
                    norm, vector, back, at = norms[m] * (1 - slack), vectors[m], backs[m], begin + m
                    if norm > smallest:
                        low[e, at] = max(low[e, at], norm)
                    quotient, largest = number(0), number(0)
                    for j in range(cuts[m]):
                        quotient = max(quotient, back[j] / vector[j])
                        largest = max(largest, back[j])
                    high[e, at] = min(high[e, at], math.sqrt(quotient + smallest**2) * (1 + slack))
                    is_close = is_close and high[e, at] <= (1 + close) * low[e, at]
                    # The largest entry is 1, so no square of what matters vanishes. None may vanish, or its quotient
                    # would say nothing; where H is 0, any vector serves.
                    for j in range(cuts[m]):
                        vector[j] = max(back[j] / largest, least) if largest > 0 else number(1)
                if is_close:
                    break
            start[: cuts[-1]] = vectors[len(cuts) - 1, : cuts[-1]]


@_compile()
def _products(matrix: Array, cuts: Array, readouts: int, vectors: Array, backs: Array, norms: Array) -> None:
    # Hᵀ H x, and ‖H x‖ / ‖x‖, at each cut, ascending.
    zero = matrix.dtype.type(0)
    for m in range(len(cuts)):
        backs[m] = zero
        norms[m] = 0.0
    for i in range(readouts * cuts[0], len(matrix)):
        row = matrix[i]
        for m in range(len(cuts)):
            if i >= readouts * cuts[m]:
                vector, back, image = vectors[m], backs[m], zero
                for j in range(cuts[m]):
                    image += row[j] * vector[j]
                for j in range(cuts[m]):
                    back[j] += image * row[j]
                norms[m] += image * image
    for m in range(len(cuts)):
        size = zero
        for j in range(cuts[m]):
            size += vectors[m, j] * vectors[m, j]
        norms[m] = math.sqrt(norms[m] / size)


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
