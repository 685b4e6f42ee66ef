"""The charts of a report, whose scripts add the data: those of `drawing` as pages have them, its map and its brush."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import altair as alt

from statesize.drawing.chart import POSITIONS, SPECTRUM, TOLERANCE, Layer
from statesize.drawing.vega import vega_chart
from statesize.report.document import resource
from statesize.results.charts import layers
from statesize.results.findings.redundancy import Redundancy
from statesize.results.protocol import Profiled


def page_charts(profiles: Sequence[Profiled], metrics: Iterable[str]) -> dict[str, Any]:
    """The specifications of a page's charts by name; only those of the layers, one a metric, have their data."""
    # The heads lie in a band around the curve, along the axis of the counts.
    tolerance = Layer("band", "band", "single heads", "ratio", "low", end="high")
    spectrum = Layer("band", "band", "single heads", "low", "ratio", end="high")
    charts = {
        "positions": POSITIONS,
        "spectrum": replace(SPECTRUM, layers=(spectrum, SPECTRUM.layers[1]), legend=False),
        "tolerance": replace(TOLERANCE, layers=(tolerance, TOLERANCE.layers[1]), legend=False),
    }
    specifications: dict[str, Any] = {name: vega_chart(chart, page=True).to_dict() for name, chart in charts.items()}
    specifications["layers"] = {metric: vega_chart(layers(profiles, metric), page=True).to_dict() for metric in metrics}
    # Models along the text, the mean curve of a sequence with an interval to choose, and layers by heads.
    for name in ("picture", "brush", "map"):
        specifications[name] = alt.Chart.from_json(resource(f"{name}.json")).to_dict()
    return specifications


def network_charts(networks: Sequence[Redundancy]) -> dict[str, dict[str, Any]]:
    """The charts of `network_section`, with their data."""
    return {f"network-{place}": vega_chart(one.chart(), page=True).to_dict() for place, one in enumerate(networks)}
