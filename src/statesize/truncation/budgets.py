"""How many tokens each cache keeps: the same share for all, or where the curves of error say that tokens help most."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor

from statesize.truncation.choices.choice import RECENT, SINKS

GRID = (1 / 32, 1 / 16, 1 / 8, 3 / 16, 1 / 4, 3 / 8, 1 / 2, 3 / 4, 1.0)
"""Shares of the tokens at which curves are measured."""


def at_shares(available: Tensor, shares: Sequence[float]) -> Tensor:
    """Tokens (caches, shares) of what each cache holds (caches,), at least the first and last that all rules keep."""
    counts = (available[:, None] * torch.tensor(list(shares), dtype=torch.float64)).round().long()
    return counts.maximum(available[:, None].clamp(max=SINKS + RECENT))


def equal(available: Tensor, share: float) -> Tensor:
    """The same share of each cache, (caches,) int64."""
    return at_shares(available, (share,))[:, 0]


def at_curves(available: Tensor, errors: Tensor, share: float) -> Tensor:
    """As many tokens together as equal budgets, by curves at the shares of GRID (caches, points): (caches,) int64."""
    counts, total = at_shares(available, GRID), int(equal(available, share).sum())
    return by_curves(counts, errors, total) if total > int(counts[:, 0].sum()) else equal(available, share)


def by_curves(counts: Tensor, errors: Tensor, total: int) -> Tensor:
    """Budgets (caches,) of `total` tokens together with the least sum of errors.

    Each curve is replaced by its lower convex hull; tokens then go where the error falls most for each, which is
    optimal for convex curves (Fox 1966, "Discrete optimization via marginal analysis").

    Args:
        counts: Tokens at which errors are known, ascending, (caches, points) int64.
        errors: (caches, points) float64.
        total: At least the sum of the first counts.

    Returns:
        int64, between the first and the last count of each cache.
    """
    budgets = counts[:, 0].clone()
    segments: list[tuple[float, int, int]] = []
    curves = cast("list[list[int]]", counts.tolist()), cast("list[list[float]]", errors.double().tolist())
    for cache, (tokens, error) in enumerate(zip(*curves, strict=True)):
        hull = _lower_hull(tokens, error)
        for (start, before), (end, after) in pairwise(hull):
            segments.append(((before - after) / (end - start), cache, end - start))
    left = total - int(budgets.sum())
    # Stable, so that the segments of a cache stay in their order.
    for _, cache, length in sorted(segments, key=lambda segment: -segment[0]):
        taken = min(length, left)
        budgets[cache] += taken
        left -= taken
        if left <= 0:
            break
    return budgets


def _lower_hull(tokens: Sequence[int], errors: Sequence[float]) -> list[tuple[int, float]]:
    """Corners of the convex hull from below (Andrew 1979)."""
    hull: list[tuple[int, float]] = []
    for point in sorted(dict(zip(tokens, errors, strict=True)).items()):
        while len(hull) > 1 and _slope(hull[-2], hull[-1]) >= _slope(hull[-2], point):
            hull.pop()
        hull.append(point)
    return hull


def _slope(first: tuple[int, float], second: tuple[int, float]) -> float:
    return (second[1] - first[1]) / (second[0] - first[0])
