"""Correlations, their intervals, and correlations inside cells."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Numbers: TypeAlias = NDArray[np.float64]
Statistic: TypeAlias = Callable[[NDArray[np.int64]], float]
"""A number from the rows with these indices, some of which may occur several times."""


def mean(values: Iterable[Any]) -> float:
    """The mean of numbers, NaN without any."""
    listed = np.array(list(values), np.float64)
    return float(listed.mean()) if len(listed) else math.nan


def pearson(x: Numbers, y: Numbers) -> float:
    """Pearson's correlation of x (N,) and y (N,); NaN with fewer than 3 pairs or where one side does not vary."""
    if len(x) < 3:
        return math.nan
    x, y = x - x.mean(), y - y.mean()
    scale = float(np.sqrt((x @ x) * (y @ y)))
    # What is left of equal numbers is round-off, not variation.
    return float(x @ y) / scale if scale > 1e-12 else math.nan


def spearman(x: Numbers, y: Numbers) -> float:
    """Spearman's rank correlation of x (N,) and y (N,), with mean ranks for ties; NaN as for `pearson`."""
    return pearson(np.asarray(stats.rankdata(x)), np.asarray(stats.rankdata(y)))


def within_cells(x: Numbers, cells: NDArray[np.int64]) -> Numbers:
    """Residuals (N,) of x (N,) from the mean of its cell; `cells` (N,) numbers the cells from 0."""
    counts = np.bincount(cells)
    means = np.bincount(cells, weights=x) / np.maximum(counts, 1)
    return x - means[cells]


@dataclass(frozen=True)
class Interval:
    """An estimate and its interval of 95 %; ends are NaN where there is too little for an interval."""

    value: float
    low: float = math.nan
    high: float = math.nan

    def __str__(self) -> str:
        return f"{self.value:.2f} [{self.low:.2f}, {self.high:.2f}]"


def bootstrap(statistic: Statistic, clusters: NDArray[np.int64], seed: int = 0, draws: int = 1000) -> Interval:
    """The interval of a statistic over rows whose `clusters` (N,), numbered from 0, are resampled."""
    # Percentiles, after Efron & Tibshirani, "The Bootstrap", 1993. Rows of one cluster, such as the seeds and rates of
    # one configuration, are drawn together, as they are not independent of each other.
    rows: list[NDArray[np.int64]] = [
        np.flatnonzero(clusters == cluster) for cluster in range(int(clusters.max(initial=-1)) + 1)
    ]
    value = statistic(np.arange(len(clusters)))
    if not rows:
        return Interval(value)
    generator = np.random.default_rng(seed)
    drawn = np.empty(draws)
    for draw in range(draws):
        chosen = generator.integers(len(rows), size=len(rows))
        drawn[draw] = statistic(np.concatenate([rows[int(cluster)] for cluster in chosen]))
    return Interval(value, *percentiles(drawn))


def bootstrap_mean(values: Numbers) -> Interval:
    """The mean of values (N,) with its interval."""
    return bootstrap(lambda rows: mean(values[rows]), np.arange(len(values)))


def bootstrap_correlation(
    correlation: Callable[[Numbers, Numbers], float],
    x: Numbers,
    y: Numbers,
    clusters: NDArray[np.int64],
    cells: NDArray[np.int64] | None = None,
    draws: int = 1000,
) -> Interval:
    """A correlation of x and y (N,) or (N, M), of the numbers, or of their residuals in `cells` (N,)."""

    def statistic(rows: NDArray[np.int64]) -> float:
        drawn = x[rows], y[rows]
        if cells is not None:
            drawn = within_cells(drawn[0], cells[rows]), within_cells(drawn[1], cells[rows])
        return correlation(drawn[0].ravel(), drawn[1].ravel())

    return bootstrap(statistic, clusters, draws=draws)


def percentiles(drawn: Numbers) -> tuple[float, float]:
    """The ends of the interval of 95 % from draws (D,); NaN where fewer than half of the draws give a number."""
    known = drawn[np.isfinite(drawn)]
    if len(known) < len(drawn) / 2:
        return math.nan, math.nan
    low, high = np.percentile(known, [2.5, 97.5])
    return float(low), float(high)
