"""Means, correlations and their evidence: Student's t over units that were drawn independently."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from operator import getitem
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import special, stats

from statesize.measurement.statistics import Interval

Numbers: TypeAlias = NDArray[np.float64]
Indices: TypeAlias = NDArray[np.int64]


def numbers(values: Iterable[Any]) -> Numbers:
    """Numbers as an array (N,)."""
    return np.array(list(values), np.float64)


def mean(values: Iterable[Any]) -> float:
    """The mean of numbers, NaN without any."""
    listed = numbers(values)
    return float(listed.mean()) if len(listed) else math.nan


def pearson(x: Numbers, y: Numbers) -> float:
    """Pearson's correlation of x (N,) and y (N,); NaN with fewer than 3 pairs or where one side does not vary."""
    return through_origin(x - x.mean(), y - y.mean()) if len(x) > 2 else math.nan


def through_origin(x: Numbers, y: Numbers) -> float:
    """The correlation of x (N,) and y (N,) whose means are 0, also within groups; NaN where one does not vary."""
    scale = math.sqrt(float(x @ x) * float(y @ y))
    # The rest of equal numbers is round-off, not variation.
    return float(x @ y) / scale if scale > 1e-12 else math.nan


def spearman(x: Numbers, y: Numbers) -> float:
    """Spearman's rank correlation of x (N,) and y (N,), with mean ranks for ties; NaN as for `pearson`."""
    rows = np.arange(len(x))
    return pearson(ranked(x, rows), ranked(y, rows))


def within_cells(x: Numbers, cells: Indices) -> Numbers:
    """Residuals (N,) of x (N,) from the mean of its cell; `cells` (N,) numbers the cells from 0."""
    means = np.bincount(cells, weights=x) / np.maximum(np.bincount(cells), 1)
    return x - means[cells]


def ranks_within(x: Numbers, cells: Indices) -> Numbers:
    """Ranks (N,) of x (N,) among the numbers of its cell, less their mean."""
    return within_cells(pd.Series(x).groupby(cells).rank().to_numpy(np.float64), cells)


# Fisher's z of a correlation of 1 is infinite.
_LARGEST_CORRELATION = 1 - 1e-9


@dataclass(frozen=True)
class Evidence:
    """An estimate, its standard error over units, and the number of units."""

    value: float
    error: float = math.nan  # on the scale on which Student's t is taken
    units: int = 0
    correlation: bool = False  # t is taken of Fisher's z, atanh of the value

    def p_above(self, threshold: float) -> float:
        """One-sided p against "the number is at most the threshold"; NaN where there are too few units."""
        excess = self.scaled(self.value) - self.scaled(threshold)
        if self.units < 2 or not (math.isfinite(self.error) and math.isfinite(excess)):
            return math.nan
        # Units that all say the same leave no doubt, but for a number right at the threshold.
        certain = math.inf if excess > 1e-9 else -math.inf
        t = certain if self.error <= 1e-12 else excess / self.error
        return float(special.stdtr(self.units - 1, -t))

    def p_below(self, threshold: float) -> float:
        """One-sided p against "the number is at least the threshold"; NaN where there are too few units."""
        return replace(self, value=-self.value).p_above(-threshold)

    def interval(self, looks: int = 1) -> Interval:
        """The estimate with its interval of 95 % for so many looks together, by Bonferroni."""
        if self.units < 2 or not math.isfinite(self.error):
            return Interval(self.value)
        half = self.error * float(special.stdtrit(self.units - 1, 1 - 0.025 / looks))
        ends = self.scaled(self.value) - half, self.scaled(self.value) + half
        low, high = map(math.tanh, ends) if self.correlation else ends
        return Interval(self.value, low, high)

    def scaled(self, number: float) -> float:
        """A number on the scale on which Student's t is taken."""
        if not self.correlation or math.isnan(number):
            return number
        return math.atanh(max(-_LARGEST_CORRELATION, min(number, _LARGEST_CORRELATION)))


def of_mean(values: Numbers) -> Evidence:
    """The evidence of the mean of values (N,), one per unit."""
    if not len(values):
        return Evidence(math.nan)
    error = float(values.std(ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return Evidence(float(values.mean()), error, len(values))


Statistic: TypeAlias = Callable[[Indices], float]
Prepare: TypeAlias = Callable[[Numbers, Indices], Numbers]


def ranked(values: Numbers, rows: Indices) -> Numbers:
    """Ranks from 1 of values (N,) among some rows, means of ranks for ties."""
    return np.asarray(stats.rankdata(values[rows]), np.float64)


def correlating(x: Numbers, y: Numbers, given: Numbers | None = None, prepare: Prepare = getitem) -> Statistic:
    """The correlation of x (N,) and y (N,), or what other numbers (N,) leave of it, NaN for nothing, by rows."""

    def correlation(rows: Indices) -> float:
        a, b = prepare(x, rows), prepare(y, rows)
        if given is None:
            return pearson(a, b)
        known = prepare(given, rows)
        xy, xz, yz = pearson(a, b), pearson(a, known), pearson(b, known)
        unexplained = (1 - xz**2) * (1 - yz**2)
        return (xy - xz * yz) / math.sqrt(unexplained) if unexplained > 1e-12 else math.nan

    return correlation


def correlation_evidence(
    x: Numbers, y: Numbers, units: Indices, given: Numbers | None = None, prepare: Prepare = getitem
) -> Evidence:
    """The evidence of `correlating`, whose `units` (N,) are left out one at a time."""
    return jackknife(correlating(x, y, given, prepare), units, correlation=True)


def jackknife(statistic: Statistic, units: Indices, *, correlation: bool = False) -> Evidence:
    """The evidence of a statistic of rows whose `units` (N,) are left out one at a time."""
    # Student's t of the pseudo-values, after Tukey 1958 and Miller, "The Jackknife, a Review", 1974. All rows of a unit
    # are left out together, as they are not independent of each other.
    value, names = statistic(np.arange(len(units))), np.unique(units)
    without = [Evidence(statistic(np.flatnonzero(units != name)), correlation=correlation) for name in names]
    # A constant does not change the spread of the pseudo-values n z − (n − 1) z_without.
    pseudo = (1 - len(names)) * np.array([left.scaled(left.value) for left in without])
    return Evidence(value, of_mean(pseudo).error, len(names), correlation)
