"""Relative tolerance-ESS against the tolerance, from the counts that a profile holds."""

from __future__ import annotations

from typing import TypedDict

import altair as alt
import numpy as np
import xarray as xr
from numpy.typing import NDArray

from statesize.drawing.curves import evenly_spread
from statesize.profiling.drawings import FEWEST, tolerance_counts
from statesize.report.packing import Packed, packed

PLACES = 16
"""Positions at which a page holds the curve, evenly spread."""


class Ladder(TypedDict):
    """The curves of one layer.

    Attributes:
        ratios: Relative tolerances, ascending.
        places: Positions of `at`.
        at: The first sequence, mean over heads, (place, ratio).
        heads: Mean over sequences and positions 1 … L−1, (head, ratio).
    """

    ratios: list[float]
    places: list[int]
    at: Packed
    heads: Packed


def layer_ladder(mixer: xr.Dataset, heads: NDArray[np.int64]) -> Ladder | None:
    """The curves of a layer.

    Args:
        mixer: A mixer's dataset.
        heads: Places of the heads or channels that the page shows.

    Returns:
        The curves, or None where the profile holds too few relative tolerances.
    """
    ratios, counts = tolerance_counts(mixer)
    if len(ratios) < FEWEST:
        return None
    inside = counts[:, :, mixer["position"].values >= 1]
    known = np.isfinite(inside)
    total = known.sum((0, 2))
    sums = np.where(known, inside, 0.0).sum((0, 2), dtype=np.float64)
    means = np.where(total > 0, sums / np.maximum(total, 1), np.nan)
    first = counts[0].mean(0)
    measured = np.flatnonzero(np.isfinite(first).all(-1))
    chosen = measured[evenly_spread(len(measured), PLACES)]
    return {
        "ratios": ratios.tolist(),
        "places": mixer["position"].values[chosen].tolist(),
        "at": packed(first[chosen]),
        "heads": packed(means[heads]),
    }


def tolerance_chart() -> alt.LayerChart:
    """ESS against the relative tolerance, without its data.

    Returns:
        A chart of the named datasets "ladder" (ratio, ess, of) and "rungs" (ratio, ess, of, head).
    """
    ratio = alt.X(
        "ratio:Q", title="Relative tolerance ρ", scale=alt.Scale(type="log"), axis=alt.Axis(format=".0e", tickCount=6)
    )
    ess = alt.Y("ess:Q", title="ESS: singular values above ρ times the largest")
    faint = alt.Chart(alt.NamedData("rungs")).mark_line(strokeWidth=1, opacity=0.5, color="#7DB9DE")
    bold = alt.Chart(alt.NamedData("ladder"))
    tooltip = [
        alt.Tooltip("of:N"),
        alt.Tooltip("ratio:Q", format=".1e"),
        alt.Tooltip("ess:Q", format=".2f", title="ESS"),
    ]
    return alt.LayerChart(
        layer=[
            faint.encode(x=ratio, y=ess, detail="head:N"),
            bold.mark_line(strokeWidth=2.2, color="var(--accent)").encode(x=ratio, y=ess),
            bold.mark_point(filled=True, size=60, color="var(--accent)").encode(x=ratio, y=ess, tooltip=tooltip),
        ]
    ).properties(width="container", height=280)
