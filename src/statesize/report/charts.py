"""The charts of a report, whose scripts add the data: those of `drawing` as pages have them, its map and its brush."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import altair as alt

from statesize.drawing.chart import POSITIONS, SPECTRUM, TOLERANCE, Hint, Layer
from statesize.drawing.vega import vega_chart
from statesize.report.document import resource
from statesize.results.charts import layers
from statesize.results.protocol import Profiled
from statesize.results.redundancy import Redundancy

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
    # The mean curve of a sequence with an interval to choose, and layers by heads.
    for name in ("brush", "map"):
        specifications[name] = alt.Chart.from_json(resource(f"{name}.json")).to_dict()
    return specifications


def network_charts(networks: Sequence[Redundancy]) -> dict[str, dict[str, Any]]:
    """The charts of `network_section`, with their data."""
    return {f"network-{place}": vega_chart(one.chart(), page=True).to_dict() for place, one in enumerate(networks)}
