"""The charts of the study of initialisation."""

from __future__ import annotations

from collections.abc import Sequence

import altair as alt

from statesize.lab.studies.grid.run import Row
from statesize.lab.studies.initialisation.claim import Start, trained
from statesize.lab.studies.page.charts import chart_data, mean_lines, percent
from statesize.lab.studies.page.final import FinalRun, final_runs, grouped


def initialisation_charts(rows: Sequence[Row], metric: str) -> alt.VConcatChart:
    """ESS at initialisation, ESS after training and accuracy against the size of the state, a row for each length."""
    drawn: list[alt.HConcatChart] = []
    for length, runs in grouped(final_runs(rows), lambda run: run.length).items():
        charts = [_lines(runs, metric, "initial", f"ESS ({metric})", f"ESS at initialisation, L = {length}")]
        if learned := [run for run in runs if trained(run)]:
            charts += [
                _lines(learned, metric, "ess", f"ESS ({metric})", "ESS after training"),
                _lines(learned, metric, "accuracy", "Accuracy", "Accuracy"),
            ]
        drawn.append(alt.hconcat(*charts))
    return alt.vconcat(*drawn)


def _lines(runs: Sequence[FinalRun], metric: str, y: str, y_title: str, title: str) -> alt.LayerChart | alt.FacetChart:
    data = chart_data(_shown(run, metric) for run in runs)
    sizes = alt.Axis(values=sorted({run.key_size for run in runs}))
    size = alt.X("key_size:Q", title="Size of the state n", scale=alt.Scale(type="log", base=2), axis=sizes)
    axis = percent() if y == "accuracy" else alt.Axis()
    chart = mean_lines(data, title, size, y, y_title, axis, ["start:N", "key_size:Q"])
    dash = alt.StrokeDash("start:N", title="Start", legend=alt.Legend(labelLimit=400, symbolSize=600))
    # Points of their own, so that the legend shows strokes.
    points = chart.mark_point(filled=True, opacity=1).encode(detail="start:N")
    return alt.layer(chart.mark_line().encode(strokeDash=dash), points)


def _shown(run: FinalRun, metric: str) -> dict[str, object]:
    return {
        "key_size": run.key_size,
        "mixer": run.mixer,
        "start": Start.of(run).label,
        "initial": run.first[metric],
        "ess": run.last[metric],
        "accuracy": run.accuracy,
    }
