"""What a page carries of one layer: its curves, the cells of its heads, and its counts at the relative tolerances."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from statesize.drawing.chart import evenly_spread, json_number
from statesize.report.extent import Extent, shown_heads
from statesize.report.packing import packed
from statesize.results.charts import FEWEST, tolerance_counts
from statesize.results.fields import Array
from statesize.results.stored.checked import DTYPES
from statesize.results.summary import ess_values, known_mean, unit_dim, unit_means, utilisation_values


def layer_data(mixer: xr.Dataset, name: str, short: str, metrics: Iterable[str], extent: Extent) -> dict[str, Any]:
    """All that the page's scripts draw of a layer, as JSON values."""
    places = slice(None, None, extent.stride)
    head_places = slice(None, None, extent.stride * extent.head_stride)
    rows = slice(None, extent.sequences)
    unit, heads = unit_dim(mixer), shown_heads(mixer)
    ess = {metric: ess_values(mixer, metric)[rows] for metric in metrics}
    return {
        "name": name,
        "short": short,
        "heads": [f"{unit} {index}" for index in mixer[unit].values[heads]],
        "positions": mixer["position"].values[places].tolist(),
        "headStride": extent.head_stride,
        "ceiling": packed(mixer["ceiling"].values[rows, places]),
        "norm": packed(mixer["norm"].values[rows, :, places].mean(1)),
        "ess": {
            metric: {"mean": packed(values[:, :, places].mean(1)), "heads": packed(values[:, heads, head_places])}
            for metric, values in ess.items()
        },
        "cells": layer_cells(mixer, ess),
        "ladder": layer_ladder(mixer, heads, extent.sequences, extent.places),
    }


def layer_cells(mixer: xr.Dataset, metrics: Iterable[str]) -> dict[str, Any]:
    """The cells of one layer in the map: averages in the order of the heads, of neighbours where there are many."""
    units = mixer[unit_dim(mixer)].values
    groups = np.array_split(np.arange(len(units)), len(shown_heads(mixer)))

    def grouped(values: Array) -> list[str | int | float | None]:
        means = unit_means(mixer, values)
        return [json_number(float(np.mean(means[group]))) for group in groups]

    return {
        "labels": [_label(unit_dim(mixer), units[group]) for group in groups],
        "share": {metric: grouped(utilisation_values(mixer, metric)) for metric in metrics},
        "ess": {metric: grouped(ess_values(mixer, metric)) for metric in metrics},
        # The largest TSS, the same in all cells.
        "tss": int(np.nanmax(mixer["state_size"].values, initial=0)),
        # What a state per channel takes in bytes per head.
        "numberBytes": DTYPES[mixer.attrs["dtype"]].itemsize * int(mixer.attrs["multiplicity"]),
    }


def _label(unit: str, members: NDArray[np.int64]) -> str:
    if len(members) == 1:
        return f"{unit} {members[0]}"
    return f"mean of {len(members)} {unit}s, {members[0]} to {members[-1]}"


def layer_ladder(mixer: xr.Dataset, heads: NDArray[np.int64], sequences: int, places: int) -> dict[str, Any] | None:
    """Counts of some heads in the first sequences at evenly spread places; None of too few relative tolerances."""
    ratios, counts = tolerance_counts(mixer)
    if len(ratios) < FEWEST:
        return None
    positions = mixer["position"].values
    inside = np.flatnonzero(positions >= 1)
    chosen = inside[evenly_spread(len(inside), places)]
    return {
        # Ascending.
        "ratios": ratios.tolist(),
        # Over sequences and positions 1 … L−1, (head, ratio).
        "means": packed(known_mean(counts[:, heads][:, :, inside], (0, 2))),
        # Positions of the counts (sequence, head, ratio, place).
        "places": positions[chosen].tolist(),
        "counts": packed(counts[:sequences, heads][:, :, chosen].swapaxes(2, 3)),
    }
