"""Counts at several shares of σ_1, bounded by thresholds that the positions of a group and all shares have in common.

Counts fall as thresholds rise, so one at τ bounds from above those of all positions whose own threshold ρ σ_1 is above
τ, and from below those whose own is below it. Each position is as close as requested once a threshold lies on either
side of its own within a span of the spectrum, which is guessed as if singular values lay evenly between the nearest
two thresholds. Each round takes as few thresholds as have one in each span, so that many positions share one, and
halves bounds on σ_1 twice where these leave no room for thresholds beside a position's own
(docs/appendix/engine-mathematics.md, "Relative tolerances of attention").
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple, cast

import numba
import numpy as np
import numpy.typing as npt
import torch

from statesize.spectra.shifts.groups import Eliminations
from statesize.spectra.spectrum import UNDERFLOW

Array = npt.NDArray[np.float64]
Whole = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

# Rounds of a group after which singular values of what is still open cost less, and those in which margins only grow,
# to fade by a factor in each later one.
_ROUNDS, _EARLY, _FADES = 60, 12, 0.2
# How close bounds on σ_1 are before thresholds are tried, relative to it.
_CLOSE = 1e-1
# How far beyond the thresholds of a group its range ends at first, relative to them; later by what evaluations were
# uncertain, times a factor, as that grows towards smaller thresholds.
_MARGIN, _FARTHER = 1e-5, 1.2
# How far from a threshold to the nearest singular value, were these even, another threshold may lie.
_NEAR = 0.7
# How much finer a range is divided than even singular values would need.
_FINER = 1.2
# Thresholds whose logarithms are as close are the same.
_SAME = 1e-12
# Numbers that evaluations may take at once, about 8 b² each.
_NUMBERS = 2**21
# Bounds on σ_1 that are wider than this share of what may be left open come closer, and are left where they barely do.
_WIDE, _STUCK = 0.5, 0.9

# Made a part of their callers first, as numba compiles what is called by itself and once more in each of these.
_compile = cast("Any", numba).njit(nogil=True, error_model="numpy", inline="always")
_compile_entry = cast("Any", numba).njit(cache=True, nogil=True, error_model="numpy")


class Bounds(NamedTuple):
    """Bounds of N groups of b positions and R ratios, which only ever come closer."""

    ratios: Array  # ρ, (R,)
    wanted: Mask  # requested positions, (N, b)
    error: Array  # how far σ of what is eliminated can be from those of H_i, (N,)
    low: Array  # σ_1 is at least this, (N, b)
    high: Array  # and at most this
    lower: Whole  # counts above ρ σ_1 are at least this, (R, N, b)
    upper: Whole  # and at most this
    below: Array  # the nearest threshold surely below ρ σ_1, (R, N, b), 0 where there is none yet
    above: Array  # and surely above, ∞ where there is none yet
    margin: Array  # how far beyond the thresholds of a group its range ends, relative to them, (R, N)
    tried: Array  # how wide the bounds on σ_1 were when they were last to come closer, (N, b)
    rounds: Whole  # of each group so far, (N,)


class Evaluations(NamedTuple):
    """Evaluations in the order in which they were made, with room for more."""

    group: Whole
    shift: Array
    counted: Whole  # (evaluations, b)
    uncertainty: Array  # (evaluations, b)
    previous: Whole  # the one before in the same group, −1 for none


def shared_thresholds(
    eliminations: Eliminations,
    accuracy: float,
    ratios: Array,
    low: Array,
    high: Array,
    wanted: Mask,
    limit: Whole,
    error: Array,
) -> Bounds:
    """Bounds on the counts above ρ σ_1 of all positions, as close as requested or as some rounds bring them.

    Args:
        eliminations: N groups of b positions.
        accuracy: Bounds may be apart by at most 1 or this share of the upper one; by nothing where it is 0.
        ratios: ρ, (R,).
        low: σ_1 is at least this, (N, b).
        high: And at most this, ∞ where nothing is known.
        wanted: Requested positions, (N, b).
        limit: The largest count possible, (N, b).
        error: How far σ of what is eliminated can be from those of H_i, (N,).

    Returns:
        The bounds at the end: `lower` and `upper`.
    """
    # The largest value itself exceeds a share of it.
    least = ((low > error[:, None]) & (ratios[:, None, None] < 1)).astype(np.int64)
    most, (N, b) = np.broadcast_to(limit, least.shape).copy(), limit.shape
    bounds = Bounds(
        ratios,
        wanted,
        error,
        low.copy(),
        high.copy(),
        lower=least,
        upper=most,
        below=np.zeros(least.shape),
        above=np.full(least.shape, np.inf),
        margin=np.zeros((len(ratios), N)),
        tried=np.full((N, b), np.inf),
        rounds=np.zeros(N, np.int64),
    )
    # As many evaluations at once as there are groups, which is what fits into memory, or as take little of it.
    last, begin, end, at_once = np.full(N, -1), 0, 0, max(N, _NUMBERS // (8 * b**2))
    whole, numbers = np.empty(0, np.int64), np.empty(0)
    past = Evaluations(whole, numbers, np.empty((0, b), np.int64), np.empty((0, b)), whole)
    groups = np.arange(N, dtype=np.int64)
    while True:
        groups, group, shift = _next_shifts(bounds, past, last, groups, begin, end, accuracy)
        if not len(group):
            return bounds
        begin, end = end, end + len(group)
        if end > len(past.group):
            past = Evaluations(
                *(
                    np.concatenate([part[:begin], np.empty_like(part, shape=(2 * end - begin, *part.shape[1:]))])
                    for part in cast("Iterator[Any]", past)
                )
            )
        past.group[begin:end], past.shift[begin:end] = group, shift
        for first in range(begin, end, at_once):
            part = slice(first, min(first + at_once, end))
            chosen, tau = torch.from_numpy(past.group[part]), torch.from_numpy(past.shift[part])
            counted, uncertainty = eliminations.at(chosen).counts(tau)
            past.counted[part], past.uncertainty[part] = counted.numpy(), uncertainty.numpy()


@_compile
def _is_apart(lower: int, upper: int, accuracy: float) -> bool:
    allowed = max(math.floor(accuracy * upper), 1 if accuracy > 0 else 0)
    return upper - lower > allowed or lower > upper


@_compile_entry
def apart(bounds: Bounds, accuracy: float) -> Mask:
    """Where bounds are farther apart than requested, or contradict each other, (R, N, b)."""
    R, (N, b) = len(bounds.ratios), bounds.wanted.shape
    found = np.zeros((R, N, b), np.bool_)
    for r in range(R):
        for n in range(N):
            for j in range(b):
                found[r, n, j] = bounds.wanted[n, j] and _is_apart(
                    bounds.lower[r, n, j], bounds.upper[r, n, j], accuracy
                )
    return found


@_compile_entry
def _next_shifts(
    bounds: Bounds, past: Evaluations, last: Whole, groups: Whole, begin: int, end: int, accuracy: float
) -> tuple[Whole, Whole, Array]:
    # Learns from the last evaluations, and says which groups go on, and the groups and thresholds of the next ones,
    # those of a group in ascending order, each once.
    R, b, left, count, most = len(bounds.ratios), bounds.wanted.shape[1], 0, 0, 4 * len(groups)
    open_, group, shift = np.empty_like(groups), np.empty(most, np.int64), np.empty(most)
    spans, logs, wide = np.empty((R * (2 + 2 * b) + 3 * b, 2)), np.empty((2, b)), np.empty(b, np.bool_)
    for n in groups:
        first = begin
        while begin < end and past.group[begin] == n:
            begin += 1
        _learn(bounds, past, last, n, first, begin)
        if bounds.rounds[n] >= _ROUNDS or _is_finished(bounds, n, accuracy):
            continue
        open_[left] = n
        left += 1
        for j in range(b):
            # Nothing is counted below the error.
            logs[0, j] = math.log(max(bounds.low[n, j], bounds.error[n], UNDERFLOW))
            logs[1, j] = math.log(max(bounds.high[n, j], UNDERFLOW))
            wide[j] = False
        at, m = _least_bounded(bounds, n, logs), 0
        if at >= 0:
            spans[0, 0] = spans[0, 1] = (logs[0, at] + logs[1, at]) / 2
            m = 1
        else:
            bounds.rounds[n] += 1
            for r in range(R):
                m = _next_of_ratio(bounds, r, n, accuracy, logs, wide, spans, m)
            for j in range(b):
                width = logs[1, j] - logs[0, j]
                if wide[j] and width < _STUCK * bounds.tried[n, j]:
                    bounds.tried[n, j] = width
                    for quarter in range(1, 4):
                        # Not one place, so that positions whose bounds overlap share it.
                        spans[m, 0] = logs[0, j] + (quarter / 4 - 1 / 8) * width
                        spans[m, 1] = logs[0, j] + (quarter / 4 + 1 / 8) * width
                        m += 1
        # As few thresholds as have one in each span: as many spans as meet the one that ends first share its middle.
        _sort_by_ends(spans, m)
        k = 0
        while k < m:
            low, high = spans[k, 0], spans[k, 1]
            while k < m and spans[k, 0] <= high:
                low = max(low, spans[k, 0])
                k += 1
            if count == len(group):
                group, shift = _with_room(group, count), _with_room(shift, count)
            group[count], shift[count] = n, math.exp((low + high) / 2)
            count += 1
    return open_[:left], group[:count], shift[:count]


@_compile
def _sort_by_ends(spans: Array, count: int) -> None:
    # Shell's sort, as numba takes a second to compile its own. Those that end alike in the order of their starts.
    gap = count // 2
    while gap > 0:
        for k in range(gap, count):
            start, end, at = spans[k, 0], spans[k, 1], k - gap
            while at >= 0 and (spans[at, 1] > end or (spans[at, 1] == end and spans[at, 0] > start)):
                spans[at + gap, 0], spans[at + gap, 1] = spans[at, 0], spans[at, 1]
                at -= gap
            spans[at + gap, 0], spans[at + gap, 1] = start, end
        gap //= 2


@_compile
def _with_room(values: npt.NDArray[Any], count: int) -> npt.NDArray[Any]:
    larger = np.empty(2 * count, values.dtype)
    for k in range(count):
        larger[k] = values[k]
    return larger


@_compile
def _is_finished(bounds: Bounds, n: int, accuracy: float) -> bool:
    # Whether nothing is left to ask of a group: neither counts nor σ_1.
    for j in range(bounds.wanted.shape[1]):
        if bounds.wanted[n, j]:
            if max(bounds.high[n, j], UNDERFLOW) > (1 + _CLOSE / 2) * max(bounds.low[n, j], UNDERFLOW):
                return False
            for r in range(len(bounds.ratios)):
                if _is_apart(bounds.lower[r, n, j], bounds.upper[r, n, j], accuracy):
                    return False
    return True


@_compile
def _least_bounded(bounds: Bounds, n: int, logs: Array) -> int:
    # The position whose σ_1 is least known, too little for thresholds of any ratio; −1 if there is none.
    widest, at = math.log1p(_CLOSE), -1
    for j in range(logs.shape[1]):
        width = logs[1, j] - logs[0, j]
        # σ within the error of 0 are not looked for, nor those of which nothing is known.
        if bounds.wanted[n, j] and widest < width < _STUCK * bounds.tried[n, j]:
            if 4 * bounds.error[n] < bounds.high[n, j] < np.inf:
                widest, at = width, j
    if at >= 0:
        bounds.tried[n, at] = widest
    return at


@_compile
def _next_of_ratio(
    bounds: Bounds, r: int, n: int, accuracy: float, logs: Array, wide: Mask, spans: Array, m: int
) -> int:
    # Appends the spans, of logarithms, in which a group needs thresholds for one ratio, and says where σ_1 must be
    # known better.
    lower, upper, below, above = bounds.lower[r, n], bounds.upper[r, n], bounds.below[r, n], bounds.above[r, n]
    rho, margin = bounds.ratios[r], math.log1p(bounds.margin[r, n] or _MARGIN)
    least, largest, log_rho = np.inf, -np.inf, math.log(rho)
    for j in range(logs.shape[1]):
        # Below the error nothing can be counted, and without an upper bound no threshold is surely above.
        if not bounds.wanted[n, j] or rho * bounds.low[n, j] <= bounds.error[n] or bounds.high[n, j] == np.inf:
            continue
        if not _is_apart(lower[j], upper[j], accuracy):
            continue
        # The nearest thresholds that are surely below and above.
        under, over = log_rho + logs[0, j] - margin, log_rho + logs[1, j] + margin
        if below[j] == 0:
            least = min(least, under)
        if above[j] == np.inf:
            largest = max(largest, over)
        if below[j] == 0 or above[j] == np.inf or lower[j] > upper[j]:
            continue
        # As if singular values lay evenly between the nearest thresholds, where σ_1 leaves room for others.
        start, end = math.log(below[j]), math.log(above[j])
        each, is_under, is_over = (end - start) / (upper[j] - lower[j]), under - start > _SAME, end - over > _SAME
        if accuracy > 0:
            # One threshold that leaves as much as is allowed to either side of it, or one on each side.
            reach = each * max(math.floor(accuracy * lower[j]), 1) / _FINER
            first, last = end - reach, start + reach
            wide[j] = wide[j] or over - under > _WIDE * reach
            if first > under and last < over:
                first, last = max(under - reach / 2, start), min(over + reach / 2, end)
            elif (under - first > last - over and is_under) or not is_over:
                last = -np.inf
            else:
                first = np.inf
        else:
            # One on each side that is nearer than the next singular value.
            number = math.floor(((under + over) / 2 - start) / each - 0.5)
            before, after = start + (number + 0.5) * each, start + (number + 1.5) * each
            first = under - _NEAR * max(under - before, 0.0) if before > start else np.inf
            last = over + _NEAR * max(after - over, 0.0) if after < end else -np.inf
        is_first, is_last = is_under and first <= under, is_over and last >= over
        if not (is_first or is_last):
            is_first, is_last, first, last = is_under, is_over and not is_under, under, over
        if is_first:
            spans[m, 0], spans[m, 1] = first, under
            m += 1
        if is_last:
            spans[m, 0], spans[m, 1] = over, last
            m += 1
        wide[j] = wide[j] or not (is_first or is_last)
    # Right below the smallest threshold that has none below it, and right above the largest.
    for end in (least, largest):
        if abs(end) < np.inf:
            spans[m, 0] = spans[m, 1] = end
            m += 1
    return m


@_compile
def _learn(bounds: Bounds, past: Evaluations, last: Whole, n: int, begin: int, end: int) -> None:
    # Takes evaluations of a group into its bounds wherever a count is between bounds, as close as requested or not.
    R, b = len(bounds.ratios), bounds.wanted.shape[1]
    is_open, is_closer = np.zeros(b, np.bool_), np.zeros(b, np.bool_)
    for r in range(R):
        for j in range(b):
            is_open[j] |= bounds.wanted[n, j] and bounds.lower[r, n, j] != bounds.upper[r, n, j]
    for e in range(begin, end):
        shift, farthest = past.shift[e], 0.0
        past.previous[e], last[n] = last[n], e
        for j in range(b):
            past.uncertainty[e, j] += bounds.error[n]
            distance = past.uncertainty[e, j]
            # One that is as uncertain as it is large says nothing of others.
            farthest = max(farthest, distance if distance < shift else shift)
            # σ_1 ≤ τ where nothing is counted above τ, and σ_1 > τ where something is.
            if past.counted[e, j] == 0 and shift + distance < bounds.high[n, j]:
                bounds.high[n, j], is_closer[j] = shift + distance, True
            if past.counted[e, j] > 0 and shift - distance > bounds.low[n, j]:
                bounds.low[n, j], is_closer[j] = shift - distance, True
        least = np.inf
        for j in range(b):
            if bounds.wanted[n, j] and bounds.low[n, j] > bounds.error[n]:
                least = min(least, bounds.low[n, j])
        # The smaller a threshold is, the more uncertain, beside it. A few are far more so than others: in late rounds
        # their margin fades, or nothing nearer would be tried.
        fades = _FADES if bounds.rounds[n] > _EARLY and e == begin else 1.0
        for r in range(R):
            bounds.margin[r, n] *= fades
            if shift > bounds.ratios[r] * least / 2:
                bounds.margin[r, n] = max(bounds.margin[r, n], _FARTHER * farthest / shift)
    for j in range(b):
        if is_open[j]:
            # What is known of σ_1 tells more of earlier evaluations too.
            e = last[n]
            while e >= (0 if is_closer[j] else begin):
                _take(bounds, past, e, n, j)
                e = past.previous[e]


@_compile
def _take(bounds: Bounds, past: Evaluations, e: int, n: int, j: int) -> None:
    shift, count, distance = past.shift[e], past.counted[e, j], past.uncertainty[e, j]
    for r in range(len(bounds.ratios)):
        if bounds.ratios[r] * bounds.high[n, j] <= shift - distance:
            bounds.lower[r, n, j] = max(bounds.lower[r, n, j], count)
            bounds.above[r, n, j] = min(bounds.above[r, n, j], shift)
        if bounds.ratios[r] * bounds.low[n, j] >= shift + distance:
            bounds.upper[r, n, j] = min(bounds.upper[r, n, j], count)
            bounds.below[r, n, j] = max(bounds.below[r, n, j], shift)
