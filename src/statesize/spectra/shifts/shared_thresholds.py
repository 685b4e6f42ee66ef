"""Counts above a threshold of each position's own, between bounds, from thresholds that neighbouring positions share.

Counts fall as thresholds rise, so one at τ bounds those of all positions of a group from above whose own threshold is
above τ, and from below those whose own is below it. Each round divides what lies between the nearest two thresholds
so finely that, if singular values lay evenly in it, the bounds would be as close as requested (docs/engines.md,
"Relative tolerances of attention").
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from statesize.spectra.bounds import UNDERFLOW
from statesize.spectra.shifts.groups import Eliminations

# Steps of a bisection for each position, at the most: as many as separate σ_1 from ‖H‖_F to double precision.
_BISECTIONS = 16
# Rounds after which singular values of what is still open cost less.
_ROUNDS = 7
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
        # How far beyond the thresholds of a group its range ends, relative to them, (N,).
        self._margin = torch.full_like(self.low[:, 0], _MARGIN)

    def bounds(self, closer: Callable[[Tensor], tuple[Tensor, Tensor]] | None = None) -> tuple[Tensor, Tensor]:
        """Lower and upper bounds (N, b), apart by at most 1 or the accuracy times the upper one where that succeeds."""
        # `closer` returns `low` and `high` (N, b), closer together at positions of a mask (N, b), the same at others.
        for attempt in range(_ROUNDS):
            lower, upper, below, above = self._known()
            unresolved = self._unresolved(lower, upper)
            within = unresolved & (below > 0) & torch.isfinite(above)
            if attempt > 1 and closer is not None and bool(within.any()):
                self.low, self.high = closer(within)
                lower, upper, below, above = self._known()
                unresolved = self._unresolved(lower, upper)
                within &= unresolved
            ends = self._ends(unresolved & (below == 0), unresolved & torch.isinf(above))
            between = self._between(within, upper - lower, lower, below, above, attempt)
            group, shift = (torch.cat(parts) for parts in zip(*ends, between, strict=True))
            if not group.numel():
                # Thresholds inside the bounds on σ_1 separate nothing; these come closer in a later round.
                if attempt > 1 or closer is None:
                    break
                continue
            self._evaluate(group, shift)
        lower, upper, _, _ = self._known()
        return lower, upper

    def apart(self, lower: Tensor, upper: Tensor) -> Tensor:
        """Where bounds are farther apart than requested, or contradict each other, (N, b)."""
        far = upper - lower > torch.floor(self.accuracy * upper).clamp(min=float(self.accuracy > 0))
        return self.wanted & (far | (lower > upper))

    def _unresolved(self, lower: Tensor, upper: Tensor) -> Tensor:
        # Below the error nothing can be counted, and without an upper bound no threshold is surely above.
        return self.apart(lower, upper) & (self.low > self.error) & torch.isfinite(self.high)

    def _ends(self, without_below: Tensor, without_above: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Right below the smallest threshold of each group that has none below it, and right above the largest."""
        group = without_below.any(-1).nonzero().squeeze(-1)
        least = torch.where(without_below[group], self.low[group], torch.inf).amin(-1)
        yield group, least / (1 + self._margin[group])
        group = without_above.any(-1).nonzero().squeeze(-1)
        most = torch.where(without_above[group], self.high[group], 0).amax(-1)
        yield group, most * (1 + self._margin[group])

    def _between(
        self, chosen: Tensor, gap: Tensor, lower: Tensor, below: Tensor, above: Tensor, attempt: int
    ) -> tuple[Tensor, Tensor]:
        """Thresholds that divide the ranges around those of chosen positions, each once."""
        group, offset = chosen.nonzero(as_tuple=True)
        at = group, offset
        allowed = torch.floor(self.accuracy * lower[at]).clamp(min=1)
        # One part more each round, as a threshold inside the bounds on a position's own σ_1 separates nothing.
        parts = torch.ceil(_FINER * gap[at].double() / allowed).clamp(2, _MOST) + attempt
        # Positions of a range divide it alike.
        start, width = below[at].log(), (above[at] / below[at]).log()
        ranges, member = _distinct(group, start, width)
        parts = torch.zeros_like(ranges[:, 0]).scatter_reduce(0, member, parts, "amax")[member]
        step = width / parts
        # The next one below what is known of a position's own threshold, and the next one above.
        below_own = ((self.low[at].log() - start) / step).floor()
        above_own = ((self.high[at].log() - start) / step).floor() + 1
        shift = torch.cat([torch.exp(start + number * step) for number in (below_own, above_own)])
        inside = torch.cat([(number > 0) & (number < parts) for number in (below_own, above_own)])
        pairs, _ = _distinct(group.repeat(2)[inside], shift[inside])
        return pairs[:, 0].long(), pairs[:, 1]

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

    def _known(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """What all evaluations say: bounds on counts and the nearest thresholds below and above each position's own."""
        shift, high, low = self._shift[:, None], self.high[self._group], self.low[self._group]
        surely_above, surely_below = high <= shift - self._uncertainty, low >= shift + self._uncertainty
        group = self._group[:, None].expand_as(self._count)

        def gathered(start: Tensor, known: Tensor, value: Tensor, largest: bool) -> Tensor:
            resolved = torch.where(known, value, start[self._group])
            return start.scatter_reduce(0, group, resolved, "amax" if largest else "amin")

        none, infinite = torch.zeros_like(self.low), torch.full_like(self.low, math.inf)
        lower = gathered(self.least, surely_above, self._count, True)
        upper = gathered(self.limit, surely_below, self._count, False)
        return lower, upper, gathered(none, surely_below, shift, True), gathered(infinite, surely_above, shift, False)


def _distinct(group: Tensor, *columns: Tensor) -> tuple[Tensor, Tensor]:
    """Distinct rows of groups and numbers (m,) each, and which of them each row is, (m,)."""
    rows = torch.stack([group.double(), *columns], -1)
    return cast("tuple[Tensor, Tensor]", rows.unique(dim=0, return_inverse=True))
