"""The blocks of an operator by shifted eliminations of groups of positions, each answer certified.

Counts at relative tolerances lie between bounds, from thresholds that neighbouring positions share: counts fall as
thresholds rise, so one at τ bounds those of all positions of a group from above whose own threshold is above τ, and
from below those whose own is below it. Each round divides what lies between the nearest two thresholds so finely that,
if singular values lay evenly in it, the bounds would be as close as requested
(docs/engine-mathematics.md, "Relative tolerances of attention").
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import torch
from torch import Tensor

from statesize.spectra.cut import Cut
from statesize.spectra.engine import Counts, HankelBlocks
from statesize.spectra.shifts.groups import FIRST_GAP, Eliminations, Groups
from statesize.spectra.spectrum import UNDERFLOW

# Steps of a bisection for each position, at the most: as many as separate σ_1 from ‖H‖_F to double precision.
_BISECTIONS = 16
# Rounds after which singular values of what is still open cost less.
_ROUNDS = 12
# How far beyond the thresholds of a group its range ends at first, relative to them; later by what evaluations were
# uncertain, times a factor, as that grows towards smaller thresholds.
_MARGIN, _FARTHER = 1e-5, 2.0
# How much finer a range is divided than even singular values would need.
_FINER = 1.2
# Thresholds of a group in one round, at the most.
_MOST = 64


def enclose_largest(
    eliminations: Eliminations, low: Tensor, high: Tensor, chosen: Tensor, error: Tensor, close: float
) -> tuple[Tensor, Tensor]:
    """Bounds on σ_1 (N, b), by bisection as close to each other as requested at positions of a mask (N, b)."""
    # σ_1 ≤ τ where nothing is counted above τ, and σ_1 > τ where something is. Positions of a group share thresholds,
    # so the bounds at others come closer too.
    low, high, stuck = low.clone(), high.clone(), ~chosen
    for _ in range(_BISECTIONS * low.shape[-1]):
        width = torch.where(stuck, 0, (high / low.clamp(min=UNDERFLOW)).log())
        group = (width > math.log1p(close)).any(-1).nonzero().squeeze(-1)
        if not group.numel():
            break
        at = group, width[group].argmax(-1)
        shift = low[at].clamp(min=UNDERFLOW).sqrt() * high[at].sqrt()
        count, uncertainty = eliminations.at(group).counts(shift)
        distance = uncertainty + error[group]
        above, below = shift[:, None] + distance, shift[:, None] - distance
        high[group] = torch.where((count == 0) & (above < high[group]), above, high[group])
        low[group] = torch.where((count > 0) & (below > low[group]), below, low[group])
        # Where round-off is as large as the distance of the bounds, they come no closer.
        stuck[at] = (high[at] / low[at].clamp(min=UNDERFLOW)).log() > 0.9 * width[at]
    return low, high


@dataclass
class SharedThresholds:
    """Bounds on counts of N groups of b positions, whose own thresholds τ lie between `low` and `high`, (N, b) each."""

    eliminations: Eliminations
    member: Tensor  # which group of the eliminations each of the N is, as several may share thresholds of the same
    low: Tensor
    high: Tensor
    wanted: Tensor  # requested positions, (N, b)
    least: Tensor  # the smallest count possible, (N, b)
    limit: Tensor  # and the largest
    error: Tensor  # how far σ of what is eliminated can be from those of H_i, (N, 1)
    accuracy: float

    def __post_init__(self) -> None:
        # Of every evaluation: its group, its threshold, and of the group's positions the count and its uncertainty.
        self._group = self.limit.new_zeros(0)
        self._shift = self.low.new_zeros(0)
        self._count = self.limit.new_zeros(0, self.limit.shape[-1])
        self._uncertainty = self.low.new_zeros(0, self.limit.shape[-1])
        # What they say: bounds on counts and the nearest thresholds surely below and above each position's own.
        self._lower, self._upper = self.least.clone(), self.limit.clone()
        self._below, self._above = torch.zeros_like(self.low), torch.full_like(self.low, math.inf)
        # How far beyond the thresholds of a group its range ends, relative to them, (N,).
        self._margin = torch.full_like(self.low[:, 0], _MARGIN)

    def bounds(self, closer: Callable[[Tensor], tuple[Tensor, Tensor]] | None = None) -> tuple[Tensor, Tensor]:
        """Lower and upper bounds (N, b), apart by at most 1 or the accuracy times the upper one where that succeeds."""
        # `closer` returns `low` and `high` (N, b), closer together at positions of a mask (N, b), the same at others.
        for attempt in range(_ROUNDS):
            unresolved = self._unresolved()
            within = unresolved & (self._below > 0) & torch.isfinite(self._above)
            if attempt > 1 and closer is not None and bool(within.any()):
                before = self.low, self.high
                self.low, self.high = closer(within)
                changed = ((self.low != before[0]) | (self.high != before[1])).any(-1)
                self._learn(changed[self._group].nonzero().squeeze(-1))
                unresolved = self._unresolved()
                within &= unresolved
            ends = self._ends(unresolved & (self._below == 0), unresolved & torch.isinf(self._above))
            between = self._between(within, attempt)
            group, shift = (torch.cat(parts) for parts in zip(*ends, between, strict=True))
            if not group.numel():
                # Thresholds inside the bounds on σ_1 separate nothing; these come closer in a later round.
                if attempt > 1 or closer is None:
                    break
                continue
            self._evaluate(group, shift)
        return self._lower, self._upper

    def apart(self, lower: Tensor, upper: Tensor) -> Tensor:
        """Where bounds are farther apart than requested, or contradict each other, (N, b)."""
        far = upper - lower > torch.floor(self.accuracy * upper).clamp(min=float(self.accuracy > 0))
        return self.wanted & (far | (lower > upper))

    def _unresolved(self) -> Tensor:
        # Below the error nothing can be counted, and without an upper bound no threshold is surely above.
        return self.apart(self._lower, self._upper) & (self.low > self.error) & torch.isfinite(self.high)

    def _ends(self, without_below: Tensor, without_above: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Right below the smallest threshold of each group that has none below it, and right above the largest."""
        group = without_below.any(-1).nonzero().squeeze(-1)
        least = torch.where(without_below[group], self.low[group], torch.inf).amin(-1)
        yield group, least / (1 + self._margin[group])
        group = without_above.any(-1).nonzero().squeeze(-1)
        most = torch.where(without_above[group], self.high[group], 0).amax(-1)
        yield group, most * (1 + self._margin[group])

    def _between(self, chosen: Tensor, attempt: int) -> tuple[Tensor, Tensor]:
        """Thresholds that divide the ranges around those of chosen positions, each once."""
        group, offset = chosen.nonzero(as_tuple=True)
        at = group, offset
        lower, below = self._lower[at], self._below[at]
        allowed = torch.floor(self.accuracy * lower).clamp(min=1)
        # One part more each round, as a threshold inside the bounds on a position's own σ_1 separates nothing.
        parts = torch.ceil(_FINER * (self._upper[at] - lower).double() / allowed).clamp(2, _MOST) + attempt
        # Positions of a range divide it alike.
        start, width = below.log(), (self._above[at] / below).log()
        ranges, member = _distinct(group, start, width)
        parts = parts.new_zeros(ranges.shape).scatter_reduce(0, member, parts, "amax")[member]
        step = width / parts
        # The next one below what is known of a position's own threshold, and the next one above.
        below_own = ((self.low[at].log() - start) / step).floor()
        above_own = ((self.high[at].log() - start) / step).floor() + 1
        shift = torch.cat([torch.exp(start + number * step) for number in (below_own, above_own)])
        inside = torch.cat([(number > 0) & (number < parts) for number in (below_own, above_own)])
        group, shift = group.repeat(2)[inside], shift[inside]
        once, _ = _distinct(group, shift)
        return group[once], shift[once]

    def _evaluate(self, group: Tensor, shift: Tensor) -> None:
        # As many at once as there are groups, which is what fits into memory.
        at_once = self.eliminations.error.shape[0]
        portions = [slice(first, first + at_once) for first in range(0, len(group), at_once)]
        counted = [self.eliminations.at(self.member[group[part]]).counts(shift[part]) for part in portions]
        count, uncertainty = (torch.cat(parts) for parts in zip(*counted, strict=True))
        self._group, self._shift = torch.cat([self._group, group]), torch.cat([self._shift, shift])
        self._count = torch.cat([self._count, count])
        uncertainty = uncertainty + self.error[group]
        self._uncertainty = torch.cat([self._uncertainty, uncertainty])
        farther = _FARTHER * (uncertainty.amax(-1) / shift).nan_to_num(posinf=0.0)
        self._margin.scatter_reduce_(0, group, farther, "amax")
        self._learn(torch.arange(len(self._group) - len(group), len(self._group), device=group.device))

    def _learn(self, evaluations: Tensor) -> None:
        """Takes some evaluations (m,) into what is known; bounds on thresholds only ever come closer."""
        group, count = self._group[evaluations], self._count[evaluations]
        shift, uncertainty = self._shift[evaluations, None], self._uncertainty[evaluations]
        surely_above = self.high[group] <= shift - uncertainty
        surely_below = self.low[group] >= shift + uncertainty
        index = group[:, None].expand_as(count)

        def take(known: Tensor, surely: Tensor, value: Tensor, largest: bool) -> None:
            resolved = torch.where(surely, value, known[group])
            known.scatter_reduce_(0, index, resolved, "amax" if largest else "amin")

        take(self._lower, surely_above, count, True)
        take(self._upper, surely_below, count, False)
        take(self._below, surely_below, shift, True)
        take(self._above, surely_above, shift, False)


def _distinct(group: Tensor, *columns: Tensor) -> tuple[Tensor, Tensor]:
    """One of each kind of rows of groups and numbers (m,) each, as indices, and the kind of every row, (m,)."""
    # One column after another: `unique` of rows takes twenty times as long.
    kind = group
    for column in columns:
        kind = kind * column.shape[0] + _kinds(column)
    kind = _kinds(kind)
    one = torch.zeros(int(kind.amax()) + 1 if kind.numel() else 0, dtype=kind.dtype, device=kind.device)
    return one.scatter_(0, kind, torch.arange(kind.shape[0], device=kind.device)), kind


def _kinds(numbers: Tensor) -> Tensor:
    """Numbered in ascending order, (m,)."""
    return cast("tuple[Tensor, Tensor]", numbers.unique(return_inverse=True))[1]


# How close bounds on σ_1 are for counts between bounds: everywhere, and how many times closer each time that counts
# are still too far apart then, down to the last number.
_CLOSE, _CLOSER, _CLOSEST = 1e-1, 6.0, 1e-6


class CertifiedBlocks(HankelBlocks):
    """The blocks H_i of an operator by shifted eliminations, which are prepared when they are first needed."""

    def __init__(
        self,
        eliminate: Callable[[], Eliminations],
        batch_shape: torch.Size,
        cut: Cut,
        rank: int,
        numbers_at_once: int = 2**21,
        first_gap: float = FIRST_GAP,
    ) -> None:
        self._given = batch_shape, cut, rank, numbers_at_once, first_gap
        self._eliminate = eliminate

    @cached_property
    def groups(self) -> Groups:
        """The eliminations, with what is known of their positions."""
        return Groups(self._eliminate(), *self._given)

    @property
    def error_bound(self) -> Tensor:  # pyright: ignore[reportIncompatibleVariableOverride]
        """δ ≥ |σ̂ − σ|, (..., P)."""
        return self.groups.at_positions(self.groups.own_error)

    def norms(self) -> Tensor:
        """‖H_i‖_F, (..., P)."""
        return self.groups.at_positions(self.groups.squared_norms.sqrt())

    def counts(self, thresholds: Tensor) -> Counts:
        """#{σ > τ} for absolute thresholds (K,)."""
        return self._gathered([self.groups.counts(tau) for tau in _plain(thresholds)])

    def relative_counts(self, ratios: Tensor, accuracy: float = 0.0) -> Counts:
        """#{σ > ρ σ_1} for ratios (R,); with an accuracy, the middle of bounds that are so close, or 1 apart."""
        if not ratios.numel() or not self.groups.wanted.any():
            none = torch.zeros_like(self.groups.limit)
            return self._gathered([(none, none, none)] * ratios.numel())
        return self._gathered(self._between(ratios, accuracy))

    def entropies(self, accuracy: float) -> tuple[Tensor, Tensor]:
        """Entropy-ESS to a relative accuracy and a bound on its error, both (..., P)."""
        ess, error = self.groups.entropies(accuracy)
        return self.groups.at_positions(ess), self.groups.at_positions(error)

    def _between(self, ratios: Tensor, accuracy: float) -> list[tuple[Tensor, Tensor, Tensor]]:
        """Counts above each ρ σ_1, (N, b), with bounds that are close, from singular values where that fails."""
        # All ratios at once: their groups in a row, (R · N, b).
        groups, several = self.groups, ratios.numel()
        every = torch.arange(groups.limit.shape[0], device=ratios.device).repeat(several)
        rho = ratios.repeat_interleave(groups.limit.shape[0])[:, None]
        low, high = self._enclosed_largest()
        # The largest value itself exceeds a share of it.
        least = ((low > groups.error)[every] & (rho < 1)).long()
        limits = groups.wanted[every], least, groups.limit[every], groups.error[every]
        shared = SharedThresholds(groups.eliminations, every, rho * low[every], rho * high[every], *limits, accuracy)

        def closer(chosen: Tensor) -> tuple[Tensor, Tensor]:
            nonlocal low, high
            requested = chosen.reshape(several, *groups.limit.shape).any(0)
            close = float((high / low)[requested & (low > 0)].nan_to_num(posinf=1.0).max()) - 1
            low, high = self._closer_largest(low, high, requested, max(_CLOSEST, close / _CLOSER))
            return rho * low[every], rho * high[every]

        lower, upper = shared.bounds(closer)
        parts = (lower, upper, shared.apart(lower, upper))
        columns = zip(_plain(ratios), *(part.chunk(several) for part in parts), strict=True)
        return [_resolved(groups, *column) for column in columns]

    def _enclosed_largest(self) -> tuple[Tensor, Tensor]:
        """σ_1 of every position between two numbers (N, b) that are as close as counts between bounds need at first."""
        groups = self.groups
        low, high = groups.eliminations.largest()
        low = (low - groups.error).clamp(min=0)
        high = torch.fmin(high, groups.eliminations.norm_bound()[:, None] + groups.error)
        # Bounds that contradict each other are none.
        sound = low <= high
        low, high = torch.where(sound, low, 0), torch.where(sound, high, torch.inf)
        return self._closer_largest(low, high, groups.wanted, _CLOSE)

    def _closer_largest(self, low: Tensor, high: Tensor, chosen: Tensor, close: float) -> tuple[Tensor, Tensor]:
        """Bounds on σ_1 (N, b) as close as requested at positions of a mask (N, b)."""
        # σ within the error of 0 are not looked for, nor those of which nothing is known.
        large = chosen & (high > 4 * self.groups.error) & torch.isfinite(high)
        return enclose_largest(self.groups.eliminations, low, high, large, self.groups.error, close)

    def _gathered(self, counts: list[tuple[Tensor, Tensor, Tensor]]) -> Counts:
        """Counts and bounds (N, b) of K thresholds at the requested positions, (..., P, K)."""
        if not counts:
            none = self.groups.at_positions(self.groups.limit)[..., None][..., :0]
            return Counts(none, none, none)
        columns = zip(*counts, strict=True)
        return Counts(*(torch.stack([self.groups.at_positions(part) for part in column], -1) for column in columns))


def _plain(numbers: Tensor) -> list[float]:
    return cast("list[float]", cast("Any", numbers).tolist())


def _resolved(
    groups: Groups, ratio: float, lower: Tensor, upper: Tensor, left: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The middle of bounds (N, b), and where a mask says that they are too far apart, what singular values say."""
    none = torch.zeros_like(lower)
    limits = torch.where(left, lower, none), torch.where(left, upper, none)
    count, least, most = groups.resolve(ratio, *limits, relative=True)
    lower, upper = torch.where(left, least, lower), torch.where(left, most, upper)
    return torch.where(left, count, (lower + upper) // 2), lower, upper
