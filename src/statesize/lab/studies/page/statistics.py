"""Correlations, correlations inside cells, and intervals from draws."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Numbers: TypeAlias = NDArray[np.float64]


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
    return pearson(ranks(x), ranks(y))


def ranks(x: Numbers) -> Numbers:
    """Ranks from 1 of x (N,), means of ranks for ties."""
    _, places, counts = np.unique(x, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[places]


def within_cells(x: Numbers, cells: NDArray[np.int64]) -> Numbers:
    """Residuals (N,) of x (N,) from the mean of its cell; `cells` (N,) numbers the cells from 0."""
    counts = np.bincount(cells)
    means = np.bincount(cells, weights=x) / np.maximum(counts, 1)
    return x - means[cells]


def percentiles(drawn: Numbers) -> tuple[float, float]:
    """The ends of the interval of 95 % from draws (D,); NaN where fewer than half of the draws give a number."""
    known = drawn[np.isfinite(drawn)]
    if len(known) < len(drawn) / 2:
        return math.nan, math.nan
    low, high = np.percentile(known, [2.5, 97.5])
    return float(low), float(high)
