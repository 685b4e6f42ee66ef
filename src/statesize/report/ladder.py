"""How many singular values exceed each relative tolerance, from the counts that a profile holds, as a page has it."""

from __future__ import annotations

from typing import TypedDict

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from statesize.drawing.curves import evenly_spread
from statesize.report.packing import Packed, packed
from statesize.results.charts import FEWEST, tolerance_counts


class Ladder(TypedDict):
    """The counts of one layer.

    Attributes:
        ratios: Relative tolerances, ascending.
        means: Mean over sequences and positions 1 … L−1, (head, ratio).
        places: Positions of `counts`.
        counts: (sequence, head, ratio, place).
    """

    ratios: list[float]
    means: Packed
    places: list[int]
    counts: Packed


def layer_ladder(mixer: xr.Dataset, heads: NDArray[np.int64], sequences: int, places: int) -> Ladder | None:
    """The counts of a layer.

    Args:
        mixer: A mixer's dataset.
        heads: Places of the heads or channels that the page shows.
        sequences: How many of the sequences, from the first on.
        places: At most so many positions, evenly spread.

    Returns:
        The counts, or None where the profile holds too few relative tolerances.
    """
    ratios, counts = tolerance_counts(mixer)
    if len(ratios) < FEWEST:
        return None
    positions = mixer["position"].values
    inside = counts[:, heads][:, :, positions >= 1]
    known = np.isfinite(inside)
    total = known.sum((0, 2))
    sums = np.where(known, inside, 0.0).sum((0, 2), dtype=np.float64)
    chosen = np.flatnonzero(positions >= 1)
    chosen = chosen[evenly_spread(len(chosen), places)]
    return {
        "ratios": ratios.tolist(),
        "means": packed(np.where(total > 0, sums / np.maximum(total, 1), np.nan)),
        "places": positions[chosen].tolist(),
        "counts": packed(counts[:sequences, heads][:, :, chosen].swapaxes(2, 3)),
    }
