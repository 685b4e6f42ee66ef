"""Correlations, their intervals, and correlations inside cells."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Numbers: TypeAlias = NDArray[np.float64]
Statistic: TypeAlias = Callable[[NDArray[np.int64]], float]
"""A number from the rows that are given by their indices, of which some may be there several times."""


def pearson(x: Numbers, y: Numbers) -> float:
    """Pearson's correlation.

    Args:
        x: (N,).
        y: (N,).

    Returns:
        In −1 … 1; NaN where there are fewer than 3 pairs or one side does not vary.

    Example:
        >>> round(pearson(np.array([1.0, 2.0, 3.0]), np.array([2.0, 4.0, 6.0])), 6)
        1.0
    """
    if len(x) < 3:
        return float("nan")
    x, y = x - x.mean(), y - y.mean()
    scale = float(np.sqrt((x @ x) * (y @ y)))
    # What is left of equal numbers is round-off, not variation.
    return float(x @ y) / scale if scale > 1e-12 else float("nan")


def spearman(x: Numbers, y: Numbers) -> float:
    """Spearman's rank correlation; ties have their mean rank.

    Args:
        x: (N,).
        y: (N,).

    Returns:
        In −1 … 1; NaN as for `pearson`.
    """
    return pearson(np.asarray(stats.rankdata(x)), np.asarray(stats.rankdata(y)))


def within_cells(x: Numbers, cells: NDArray[np.int64]) -> Numbers:
    """What is left of numbers when the mean of their cell is taken off.

    Args:
        x: (N,).
        cells: The cell of each, (N,), numbered from 0.

    Returns:
        Residuals (N,).

    Example:
        >>> within_cells(np.array([1.0, 3.0, 10.0, 12.0]), np.array([0, 0, 1, 1]))
        array([-1.,  1., -1.,  1.])
    """
    counts = np.bincount(cells)
    means = np.bincount(cells, weights=x) / np.maximum(counts, 1)
    return x - means[cells]


@dataclass(frozen=True)
class Interval:
    """An estimate and where it lies with 95 % confidence.

    Attributes:
        value: The estimate.
        low: Lower end of the interval.
        high: Upper end.
    """

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.2f} [{self.low:.2f}, {self.high:.2f}]"


def bootstrap(statistic: Statistic, clusters: NDArray[np.int64], seed: int = 0, draws: int = 1000) -> Interval:
    """An interval of percentiles from resampled clusters (Efron & Tibshirani, "The Bootstrap", 1993).

    Rows of one cluster, such as the seeds and rates of one configuration, are drawn together, as they are not
    independent of each other.

    Args:
        statistic: The number, from the indices of rows.
        clusters: The cluster of each row, (N,), numbered from 0.
        seed: Of the draws.
        draws: How many.

    Returns:
        The number for all rows and its interval; NaN ends where fewer than half of the draws give a number.
    """
    rows: list[NDArray[np.int64]] = [
        np.flatnonzero(clusters == cluster) for cluster in range(int(clusters.max(initial=-1)) + 1)
    ]
    value = statistic(np.arange(len(clusters)))
    if not rows:
        return Interval(value, float("nan"), float("nan"))
    generator = np.random.default_rng(seed)
    drawn = np.empty(draws)
    for draw in range(draws):
        chosen = generator.integers(len(rows), size=len(rows))
        drawn[draw] = statistic(np.concatenate([rows[int(cluster)] for cluster in chosen]))
    known = drawn[np.isfinite(drawn)]
    if len(known) < draws / 2:
        return Interval(value, float("nan"), float("nan"))
    low, high = np.percentile(known, [2.5, 97.5])
    return Interval(value, float(low), float(high))
