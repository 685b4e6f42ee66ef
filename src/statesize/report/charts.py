"""The charts of a report, whose scripts add the data: those of `drawing` as pages have them, a map and a brush."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import altair as alt

from statesize.drawing.chart import POSITIONS, SPECTRUM, TOLERANCE, Hint, Layer
from statesize.drawing.vega import vega_chart
from statesize.results.charts import layers
from statesize.results.protocol import Profiled

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
"""What the map shows."""

# Counts tell between which tolerances a value lies.
_RANGES = Layer(
    "range",
    "values",
    "mean",
    "index",
    "low",
    end="high",
    hints=(Hint("index", "m", "d"), Hint("low", "σ_m ÷ σ_1 above", ".1e"), Hint("high", "at most", ".1e")),
)


def page_charts(profiles: Sequence[Profiled]) -> dict[str, dict[str, Any]]:
    """The specifications of a page's charts by name; only that of the layers has its data."""
    charts = {
        "layers": layers(profiles),
        "positions": POSITIONS,
        "spectrum": replace(SPECTRUM, layers=(SPECTRUM.layers[0], _RANGES), legend=False),
        "tolerance": replace(TOLERANCE, legend=False),
    }
    specifications = {name: vega_chart(chart, page=True).to_dict() for name, chart in charts.items()}
    return specifications | {"brush": brush_chart().to_dict(), "map": map_chart().to_dict()}


def brush_chart() -> alt.Chart:
    """The mean curve of a sequence, the dataset "positions" (position, ess), with the signal "brush", an interval."""
    scale = alt.Scale(nice=False, zero=False)
    return (
        alt.Chart(alt.NamedData("positions"))
        .mark_area(opacity=0.3, line={"strokeWidth": 1}, color="var(--accent)")
        .encode(
            x=alt.X("position:Q", title=None, scale=scale, axis=alt.Axis(labels=False, ticks=False)),
            y=alt.Y("ess:Q", title=None, axis=None),
        )
        .add_params(alt.selection_interval(name="brush", encodings=["x"]))
        .properties(width="container", height=44)
    )


def map_chart() -> alt.LayerChart:
    """A map of layers by heads, the dataset "cells" (short, layer, column, label, regime, value, and MEASURES)."""
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


def _format(name: str) -> str:
    return ".0%" if "utilisation" in name else ",.0f" if "tss" in name or "bytes" in name else ".2f"
