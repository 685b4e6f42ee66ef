"""The map of a report: what each head of each layer holds."""

from __future__ import annotations

from typing import TypedDict

import altair as alt
import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray

from statesize.report.charts import json_number
from statesize.results.diagnosis import regime_of
from statesize.results.summary import ess_values, unit_dim, unit_means, utilisation_values

COLUMNS = 64
"""Cells of a layer; heads or channels beyond that are put together."""
MEASURES = {
    "relative_utilisation": "Utilisation, relative tolerance-ESS",
    "utilisation": "Utilisation, entropy-ESS",
    "relative": "Relative tolerance-ESS, states per channel",
    "entropy": "Entropy-ESS, states per channel",
    "relative_bytes": "Relative tolerance-ESS, bytes per head",
    "entropy_bytes": "Entropy-ESS, bytes per head",
    "tss": "TSS, states per channel",
    "tss_bytes": "TSS, bytes per head",
}


class Cells(TypedDict):
    """The cells of one layer.

    Attributes:
        labels: Which head or heads each cell is of.
        regimes: By the same metric and thresholds as the diagnosis in words.
        values: Numbers by the names of MEASURES, except TSS and bytes; those that are not known are left out.
        tss: The largest TSS, the same in all cells.
        numberBytes: What a state per channel takes in bytes per head.
    """

    labels: list[str]
    regimes: list[str]
    values: dict[str, list[str | int | float | None]]
    tss: int
    numberBytes: int


def map_chart() -> alt.LayerChart:
    """A map of layers by heads, without its data.

    Returns:
        A chart of the named dataset "cells" (short, layer, column, label, value, and the names of MEASURES).
    """
    base = alt.Chart(alt.NamedData("cells")).encode(
        x=alt.X("column:O", title="Head", axis=alt.Axis(labelAngle=0, labelOverlap=True)),
        y=alt.Y("short:N", title="Layer", sort=None, axis=alt.Axis(labelOverlap=True)),
    )
    numbers = [alt.Tooltip(f"{name}:Q", title=title, format=_format(name)) for name, title in MEASURES.items()]
    cells = base.mark_rect(stroke="var(--page)", strokeWidth=1).encode(
        color=alt.Color(
            "value:Q",
            scale=alt.Scale(scheme="viridis"),
            legend=alt.Legend(title=None, orient="top", gradientLength=220, gradientThickness=10),
        ),
        tooltip=[alt.Tooltip("layer:N"), alt.Tooltip("label:N", title="of"), alt.Tooltip("regime:N"), *numbers],
    )
    text = base.mark_text(fontSize=11).encode(
        text=alt.Text("value:Q"), color=alt.when("datum.bright").then(alt.value("#111")).otherwise(alt.value("#fff"))
    )
    return alt.LayerChart(layer=[cells, text]).properties(width="container")


def layer_cells(mixer: xr.Dataset) -> Cells:
    """What the map shows of one layer: averages over sequences and positions 1 … L−1.

    Args:
        mixer: A mixer's dataset.

    Returns:
        Its cells, in the order of its heads.
    """
    units = mixer[unit_dim(mixer)].values
    groups = np.array_split(np.arange(len(units)), min(len(units), COLUMNS))
    number_bytes = getattr(torch, str(mixer.attrs["dtype"])).itemsize * int(mixer.attrs["multiplicity"])
    values: dict[str, NDArray[np.float64]] = {}
    for prefix, name, metric in (("relative_", "relative", "relative_tolerance"), ("", "entropy", "entropy")):
        ess = ess_values(mixer, metric)
        if metric == "entropy" or np.isfinite(ess).any():
            values[name] = unit_means(mixer, ess)
            values[f"{prefix}utilisation"] = unit_means(mixer, utilisation_values(mixer, metric))
    grouped = {name: [float(np.mean(array[group])) for group in groups] for name, array in values.items()}
    judged = grouped.get("relative_utilisation", grouped["utilisation"])
    return {
        "labels": [_label(unit_dim(mixer), units[group]) for group in groups],
        "regimes": [regime_of(share) if np.isfinite(share) else "not measured" for share in judged],
        "values": {name: [json_number(value) for value in array] for name, array in grouped.items()},
        "tss": int(np.nanmax(mixer["state_size"].values, initial=0)),
        "numberBytes": number_bytes,
    }


def _label(unit: str, members: NDArray[np.int64]) -> str:
    return (
        f"{unit} {members[0]}"
        if len(members) == 1
        else f"mean of {len(members)} {unit}s, {members[0]} to {members[-1]}"
    )


def _format(name: str) -> str:
    return ".0%" if "utilisation" in name else ",.0f" if "tss" in name or "bytes" in name else ".2f"
