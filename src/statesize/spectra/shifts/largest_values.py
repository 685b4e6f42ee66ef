"""The largest singular value of blocks H_i between two numbers, by the power method from one position to the next.

From below σ_1 ≥ ‖H x‖ for ‖x‖ = 1; from above, where H has no negative entries, by Collatz and Wielandt,
σ_1² ≤ max_j (Hᵀ H x)_j / x_j for every x > 0 (Horn and Johnson, Matrix Analysis, corollary 8.1.31), and by Temple,
σ_1² ≤ (‖Hᵀ H x‖² − β ‖H x‖²) / (‖H x‖² − β) for ‖x‖ = 1 and σ_2² ≤ β < ‖H x‖², of which Σ σ⁴ − σ_1⁴ ≥ σ_2⁴ gives
one (Parlett, The Symmetric Eigenvalue Problem, section 10.1). Temple's bound errs by the square of what x does. Sums of
numbers that are not negative lose at most a rounding a term, so single precision is enough for bounds of 3e-4.
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
# Bounds that are farther apart, relative to σ_1, are not left to what follows from other positions.
_LOOSE = 3e-2
# Roundings of a product beside those of its sums, at most.
_ROUNDINGS = 8
# Relative round-off of Σ σ⁴, in double precision.
_ROUNDED = 1e-9

_FAST = {"contract", "reassoc", "nnan", "nsz"}
_compile = partial(cast("Any", numba).njit, nogil=True, fastmath=_FAST, error_model="numpy")


def sampled_positions(length: int, every: int) -> Tensor:
    """Some of the positions 1 … L − 1, more of them near the ends."""
    position = torch.arange(1, length)
    distance = torch.minimum(position, length - position)
    close = (distance < _ALL) | ((distance < _EVERY_OTHER) & (position % 2 == 0))
    return position[close | (position % every == 0)]


def largest_everywhere(
    strict: Tensor, fourth: Tensor, reach: Tensor, every: int, close: float
) -> tuple[Tensor, Tensor]:
    """σ_1 of T (E, r L, L), strictly lower, not negative, between two numbers (E, L), close at some positions."""
    # `fourth` is at least Σ σ⁴ of each H_i, (E, L); columns before the first number of `reach`, and rows from the
    # second on, are 0 in it, (E, L, 2).
    # At one in `every` and more near the ends, as near as single precision and a few steps come.
    length = strict.shape[-1]
    positions = sampled_positions(length, every)
    at_once = max(1, _NUMBERS // max(1, strict.shape[-2] * length))
    bounds: list[tuple[Tensor, Tensor]] = []
    for part, powers, reached in zip(
        *(cast("Sequence[Tensor]", whole.split(at_once)) for whole in (strict, fourth, reach)), strict=True
    ):
        low, single = part.new_zeros(len(part), length), part.float()
        high = torch.full_like(low, torch.inf)
        high[:, 0] = 0
        given = (single, positions, powers[:, positions], reached[:, positions])
        low[:, positions], high[:, positions] = largest_at(*given, close, steps=12)
        if not bool((high[:, 1:] <= (1 + close) * low[:, 1:]).all()):
            low, high = _carried(part, low, high)
            # Where σ_1 changes fast, this says little.
            for e, (least, most) in enumerate(zip(low, high, strict=True)):
                loose = (most > (1 + _LOOSE) * least).nonzero().squeeze(-1)
                given = (single[e, None], loose, powers[e, None, loose], reached[e, None, loose])
                closer = largest_at(*given, _LOOSE / 4, steps=12)
                least[loose] = torch.maximum(least[loose], closer[0][0])
                most[loose] = torch.minimum(most[loose], closer[1][0])
        bounds.append((low, high))
    low, high = zip(*bounds, strict=True)
    return torch.cat(low), torch.cat(high)


def largest_at(
    strict: Tensor, positions: Tensor, fourth: Tensor, reach: Tensor, close: float, steps: int
) -> tuple[Tensor, Tensor]:
    """σ_1 of T (E, r L, L) without negative entries between two numbers (E, m), at ascending positions (m,)."""
    # `fourth` is at least Σ σ⁴ there, (E, m), `reach` as above, (E, m, 2).
    low = torch.zeros(len(strict), len(positions), dtype=torch.float64)
    high = torch.full_like(low, torch.inf)
    smallest = UNDERFLOW if strict.dtype == torch.float64 else _SMALLEST
    rounding = torch.finfo(strict.dtype).eps / 2
    given = strict.numpy(), positions.numpy(), (fourth * (1 + _ROUNDED)).numpy(), reach.numpy()
    _climb(*given, close, steps, rounding, smallest, low.numpy(), high.numpy())
    return low, high


@_compile(cache=True)
def _climb(
    strict: Array,
    positions: Array,
    fourth: Array,
    reach: Array,
    close: float,
    steps: int,
    rounding: float,
    smallest: float,
    low: Array,
    high: Array,
) -> None:
    # Some positions share each reading of T, and start from the vector of the last one before them.
    E, rows, length = strict.shape
    number = strict.dtype.type
    least, start = number(_LEAST), np.empty(length, strict.dtype)
    vectors, backs = np.empty((_TOGETHER, length), strict.dtype), np.empty((_TOGETHER, length), strict.dtype)
    norms, lengths = np.empty(_TOGETHER), np.empty(_TOGETHER)
    for e in range(E):
        start[:] = least
        for begin in range(0, len(positions), _TOGETHER):
            cuts = positions[begin : begin + _TOGETHER]
            if begin == 0:
                start[: cuts[0]] = number(1)
            for m in range(_TOGETHER):
                vectors[m] = number(0)
            for m in range(len(cuts)):
                for j in range(cuts[m]):
                    vectors[m, j] = start[j]
            column, end = reach[e, begin, 0], reach[e, begin + len(cuts) - 1, 1]
            for _ in range(steps):
                _products(strict[e], cuts, rows // length, column, end, vectors, backs, norms, lengths)
                is_close = True
                for m in range(len(cuts)):
                    # Each sum of n numbers that are not negative loses at most n times the rounding of one, and the
                    # last product holds sums of sums.
                    slack = rounding * (len(strict[e]) - (rows // length - 1) * cuts[m] + _ROUNDINGS)
                    norm, vector, back, at = norms[m] * (1 - slack), vectors[m], backs[m], begin + m
                    if norm > smallest:
                        low[e, at] = max(low[e, at], norm)
                    quotient, largest = number(0), number(0)
                    for j in range(cuts[m]):
                        quotient = max(quotient, back[j] / vector[j])
                        largest = max(largest, back[j])
                    high[e, at] = min(high[e, at], math.sqrt(quotient + smallest**2) * (1 + slack))
                    if norm > _SMALLEST:
                        temple = _temple(norm**2, (lengths[m] * (1 + slack)) ** 2, fourth[e, at], low[e, at])
                        high[e, at] = min(high[e, at], math.sqrt(temple))
                    is_close = is_close and high[e, at] <= (1 + max(close, 3 * slack)) * low[e, at]
                    # The largest entry is 1, so no square of what matters vanishes. None may vanish, or its quotient
                    # would say nothing; where H is 0, any vector serves.
                    for j in range(cuts[m]):
                        vector[j] = max(back[j] / largest, least) if largest > 0 else number(1)
                if is_close:
                    break
            for j in range(cuts[-1]):
                start[j] = vectors[len(cuts) - 1, j]


@_compile()
def _temple(quotient: float, square: float, fourth: float, low: float) -> float:
    # At least σ_1², of ‖H x‖² and ‖Hᵀ H x‖² for ‖x‖ = 1, Σ σ⁴ and σ_1 from below; ∞ where σ_2 is not known to be less.
    second = math.sqrt(max(fourth - low**4, 0.0))
    return (square - second * quotient) / (quotient - second) if second < quotient else math.inf


@_compile()
def _products(
    matrix: Array, cuts: Array, readouts: int, column: int, end: int,
    vectors: Array, backs: Array, norms: Array, lengths: Array,
) -> None:  # fmt: skip
    # Hᵀ H x, ‖H x‖ / ‖x‖ and ‖Hᵀ H x‖ / ‖x‖, at each cut, ascending; columns before one and rows behind an end are 0.
    zero, last = matrix.dtype.type(0), cuts[len(cuts) - 1]
    backs[:] = zero
    norms[:] = 0.0
    # From the last cut on, rows four at a time, with the zeros of vectors up to there.
    whole = readouts * last
    fours = whole + (end - whole) // 4 * 4
    # Slices, as in loops that begin at a variable the compiler allows for negative indices.
    for i in range(readouts * cuts[0], end):
        row = matrix[i, column:]
        for m in range(len(cuts)):
            if i >= readouts * cuts[m] and not whole <= i < fours:
                vector, back, image = vectors[m, column:], backs[m, column:], zero
                for j in range(cuts[m] - column):
                    image += row[j] * vector[j]
                for j in range(cuts[m] - column):
                    back[j] += image * row[j]
                norms[m] += float(image) ** 2
    width = last - column
    for i in range(whole, fours, 4):
        r0, r1, r2, r3 = matrix[i, column:], matrix[i + 1, column:], matrix[i + 2, column:], matrix[i + 3, column:]
        for m in range(0, _TOGETHER, 2):
            x, y = vectors[m, column:], vectors[m + 1, column:]
            x0, x1, x2, x3, y0, y1, y2, y3 = zero, zero, zero, zero, zero, zero, zero, zero
            for j in range(width):
                x0, x1, x2, x3 = x0 + r0[j] * x[j], x1 + r1[j] * x[j], x2 + r2[j] * x[j], x3 + r3[j] * x[j]
                y0, y1, y2, y3 = y0 + r0[j] * y[j], y1 + r1[j] * y[j], y2 + r2[j] * y[j], y3 + r3[j] * y[j]
            _add_rows(r0, r1, r2, r3, width, x0, x1, x2, x3, backs[m, column:])
            _add_rows(r0, r1, r2, r3, width, y0, y1, y2, y3, backs[m + 1, column:])
            norms[m] += float(x0) ** 2 + float(x1) ** 2 + float(x2) ** 2 + float(x3) ** 2
            norms[m + 1] += float(y0) ** 2 + float(y1) ** 2 + float(y2) ** 2 + float(y3) ** 2
    for m in range(len(cuts)):
        size, length = 0.0, 0.0
        for j in range(cuts[m]):
            size += float(vectors[m, j]) ** 2
            length += float(backs[m, j]) ** 2
        norms[m], lengths[m] = math.sqrt(norms[m] / size), math.sqrt(length / size)


@_compile()
def _add_rows(
    r0: Array, r1: Array, r2: Array, r3: Array, count: int, x0: float, x1: float, x2: float, x3: float, back: Array
) -> None:
    for j in range(count):
        back[j] += x0 * r0[j] + x1 * r1[j] + x2 * r2[j] + x3 * r3[j]


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
