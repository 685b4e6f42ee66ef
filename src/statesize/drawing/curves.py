"""What is drawn, whatever draws it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from statesize.errors import InputError

Role: TypeAlias = Literal["mean", "single heads", "ceiling"]
METRICS = {
    "entropy": "Entropy-ESS",
    "relative_tolerance": "Relative tolerance-ESS",
    "tolerance": "Tolerance-ESS",
}
"""What can be drawn over positions, with its title."""
COLOURS: dict[Role, str] = {"mean": "#0072B2", "single heads": "#7DB9DE", "ceiling": "#8C8C8C"}
MOST_HEADS = 32
"""Single heads or channels that are drawn; evenly chosen where there are more."""


@dataclass(frozen=True, eq=False)
class Curve:
    """One line.

    Attributes:
        name: What it is.
        role: How it looks.
        x: (N,) finite.
        y: (N,) finite.
    """

    name: str
    role: Role
    x: NDArray[np.float64]
    y: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Drawing:
    """Lines with their axes.

    Attributes:
        title: Said above it, where there is room.
        x_title: Of the horizontal axis.
        y_title: Of the vertical axis.
        curves: The lines, those in front last.
        log_x: Whether the horizontal axis is logarithmic.
        log_y: Whether the vertical axis is logarithmic.
        marked: Whether each point is marked.
    """

    title: str
    x_title: str
    y_title: str
    curves: tuple[Curve, ...]
    log_x: bool = False
    log_y: bool = False
    marked: bool = False


def metric_title(metric: str) -> str:
    """The title of a metric.

    Args:
        metric: One of METRICS.

    Returns:
        Its title.

    Raises:
        InputError: No such metric.
    """
    if metric not in METRICS:
        raise InputError(f"metric is {metric!r}; choose one of {', '.join(METRICS)}.")
    return METRICS[metric]


def place_of(position: int | None, positions: Sequence[int]) -> int:
    """Where a position stands among those that were measured.

    Args:
        position: One of them; None takes the middle one.
        positions: All of them, ascending.

    Returns:
        Its index.

    Raises:
        InputError: It was not measured.
    """
    if position is None:
        return len(positions) // 2
    if position not in positions:
        raise InputError(f"position {position} was not measured; there are {positions[0]} … {positions[-1]}.")
    return positions.index(position)


def curve(name: str, role: Role, x: ArrayLike, y: ArrayLike, positive: bool = False) -> Curve:
    """A line of the points that are known.

    Args:
        name: What it is.
        role: How it looks.
        x: (N,).
        y: (N,), NaN where nothing is known.
        positive: Leave out what a logarithmic axis cannot show.

    Returns:
        The line.

    Example:
        >>> curve("head 0", "mean", [1, 2, 3], [0.5, float("nan"), 1.5]).x.tolist()
        [1.0, 3.0]
    """
    across, up = np.asarray(x, np.float64), np.asarray(y, np.float64)
    known = np.isfinite(across) & np.isfinite(up) & ((up > 0) if positive else True)
    return Curve(name, role, across[known], up[known])


def heads_and_mean(unit: str, x: ArrayLike, heads: NDArray[np.floating], positive: bool = False) -> list[Curve]:
    """A line for each of some heads, and one for the mean over all.

    Args:
        unit: What they are called, "head" or "channel".
        x: (N,).
        heads: (heads, N).
        positive: Leave out what a logarithmic axis cannot show.

    Returns:
        The lines.
    """
    chosen = evenly_spread(len(heads))
    lines = [curve(f"{unit} {head}", "single heads", x, heads[head], positive) for head in chosen]
    return [*(lines if len(heads) > 1 else []), curve("mean", "mean", x, heads.mean(0), positive)]


def evenly_spread(count: int, most: int = MOST_HEADS) -> NDArray[np.int64]:
    """Which of some heads or positions are drawn one by one.

    Args:
        count: Their number.
        most: How many are drawn.

    Returns:
        Indices, ascending, the first and the last among them.
    """
    return np.unique(np.linspace(0, count - 1, min(count, most)).astype(np.int64))


def roles(drawing: Drawing) -> Sequence[Role]:
    """What a legend names.

    Args:
        drawing: The drawing.

    Returns:
        The roles that occur, the mean first.
    """
    return [role for role in COLOURS if any(line.role == role for line in drawing.curves)]
