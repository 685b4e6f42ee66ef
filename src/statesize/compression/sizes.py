"""How many states each head keeps of a total: the same number each, or more where a cut costs more."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def equal_sizes(heads: int, total: int, most: int) -> list[int]:
    """About the same number each, at least 1 and at most `most`; the first have one more."""
    return [min(most, total // heads + (head < total % heads)) for head in range(heads)]


def sizes_by_cost(costs: Sequence[NDArray[np.float64]], total: int) -> list[int]:
    """Sizes of least cost in sum, at least 1 each; costs (n + 1,) of keeping 0 … n states of a head."""
    # On the convex hull of each head's costs, the state that saves most is kept first.
    steps: list[tuple[float, int]] = []
    for head, cost in enumerate(costs):
        hull = _convex(cost[1:])
        steps += [(float(hull[r] - hull[r + 1]), head) for r in range(len(hull) - 1)]
    sizes = [1] * len(costs)
    # Sorted stably, so that the states of a head come in their order where they save the same.
    for _, head in sorted(steps, key=lambda step: -step[0])[: total - len(costs)]:
        sizes[head] += 1
    return sizes


def _convex(costs: NDArray[np.float64]) -> NDArray[np.float64]:
    """The largest convex function below costs (n,) at 0 … n − 1, (n,)."""
    corners: list[int] = []
    for place in range(len(costs)):
        while len(corners) > 1 and not _is_corner(costs, corners[-2], corners[-1], place):
            corners.pop()
        corners.append(place)
    return np.interp(np.arange(len(costs)), corners, costs[corners])


def _is_corner(costs: NDArray[np.float64], before: int, place: int, after: int) -> bool:
    """Whether costs bend upwards at a place."""
    return bool((costs[place] - costs[before]) * (after - before) < (costs[after] - costs[before]) * (place - before))
