"""The charts of the study of zoology's figure 2."""

from __future__ import annotations

import math
from collections.abc import Sequence

import altair as alt

from statesize.lab.studies.grid.run import Row
from statesize.lab.studies.page.charts import chart_data, mean_lines, percent
from statesize.lab.studies.zoology.claim import Best, best_runs


def zoology_charts(rows: Sequence[Row], metric: str) -> alt.VConcatChart:
    """Accuracy with the published one, and utilisation, against width, a panel a length."""
    bests = best_runs(rows)
    lengths = sorted({best.run.length for best in bests})
    panels = [_panel([best for best in bests if best.run.length == length], metric) for length in lengths]
    return alt.vconcat(*panels)


def _panel(bests: Sequence[Best], metric: str) -> alt.HConcatChart:
    common = [{"mixer": best.run.mixer, "width": best.run.width, "rate": best.run.rate} for best in bests]
    shown = [
        {**row, "from": source, "accuracy": value}
        for row, best in zip(common, bests, strict=True)
        for source, value in (("here", best.run.accuracy), ("published", best.published))
        if not math.isnan(value)
    ]
    used = [{**row, "utilisation": best.utilisation(metric)} for row, best in zip(common, bests, strict=True)]
    title = f"L {bests[0].run.length}, kv {bests[0].run.kv}"
    x = alt.X("width:Q", title="Width", scale=alt.Scale(type="log", base=2))
    told = ["mixer:N", "width:Q", "rate:Q"]
    accuracy = mean_lines(chart_data(shown), f"Accuracy, {title}", x, "accuracy", "Accuracy", percent(), told)
    ess = mean_lines(
        chart_data(used), f"Utilisation ({metric}), {title}", x, "utilisation", "Utilisation", percent(), told
    )
    dash, shape = alt.StrokeDash("from:N", legend=None), alt.Shape("from:N", title="Accuracy")
    return alt.hconcat(accuracy.encode(strokeDash=dash, shape=shape), ess)
