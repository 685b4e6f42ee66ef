"""The bars of a report: how full each layer is, against the thresholds of the diagnosis."""

from __future__ import annotations

from collections.abc import Sequence

import altair as alt

from statesize.report.charts import layers_chart
from statesize.results.diagnosis import COLLAPSED, SATURATED


def bars_chart(models: Sequence[str]) -> alt.LayerChart:
    """Utilisation of each layer of each model with the thresholds, without its data.

    Args:
        models: The models' names, in the order in which they are drawn.

    Returns:
        A chart of the dataset of `charts.layers_chart`.
    """
    thresholds = [{"share": SATURATED}, {"share": COLLAPSED}]
    rules = alt.Chart(alt.Data(values=thresholds)).mark_rule(strokeDash=[2, 3], color="var(--soft)")
    return alt.LayerChart(layer=[_unsized(layers_chart(models)), rules.encode(y="share:Q")]).properties(
        width="container", height=240
    )


def _unsized(chart: alt.Chart) -> alt.Chart:
    # A layer takes its size from the whole.
    return alt.Chart.from_dict({key: value for key, value in chart.to_dict().items() if key not in _SIZED})


_SIZED = {"width", "height", "$schema", "config"}
