"""The charts of the study of regularisation."""

from __future__ import annotations

from collections.abc import Sequence

import altair as alt

from statesize.lab.studies.grid.run import Row
from statesize.lab.studies.page.charts import SIDE, chart_data, palette, percent, points, rounded
from statesize.lab.studies.page.final import final_runs
from statesize.lab.studies.regularisation.claim import Treatment, usual_steps


def regularisation_charts(rows: Sequence[Row], metric: str) -> alt.VConcatChart:
    """Accuracy and ESS by treatment, and one against the other, each run a point."""
    runs = final_runs(rows)
    labels = [Treatment.of(run).label(usual_steps(runs)) for run in runs]
    data = chart_data(
        {
            "mixer": run.mixer,
            "treatment": label,
            "seed": run.seed,
            "accuracy": run.accuracy,
            "share": run.share(metric),
        }
        for run, label in zip(runs, labels, strict=True)
    )
    ordered, share = list(dict.fromkeys(labels)), f"ESS / TSS ({metric})"
    against = points(
        data,
        "Accuracy against ESS",
        alt.X("share:Q", title=share, axis=percent()),
        alt.Y("accuracy:Q", title="Accuracy", axis=percent()),
        palette("mixer", "Mixer"),
        ["mixer:N", "treatment:N", "seed:Q", "accuracy:Q", "share:Q"],
    )
    shape = alt.Shape("treatment:N", title="Treatment", sort=ordered, legend=alt.Legend(labelLimit=400))
    return alt.vconcat(
        alt.hconcat(_by_treatment(data, ordered, "accuracy", "Accuracy"), _by_treatment(data, ordered, "share", share)),
        alt.hconcat(against.encode(shape=shape).properties(width=1.6 * SIDE)),
    )


def _by_treatment(data: alt.Data, ordered: list[str], y: str, title: str) -> alt.LayerChart | alt.FacetChart:
    base = alt.Chart(data, title=f"{title}, by treatment").encode(
        x=alt.X("treatment:N", title="Treatment", sort=ordered, axis=alt.Axis(labelLimit=300, labelAngle=-40)),
        xOffset="mixer:N",
        color=palette("mixer", "Mixer"),
        tooltip=["mixer:N", "treatment:N", "seed:Q", rounded(y)],
    )
    runs = base.mark_point(filled=True, size=30, opacity=0.6).encode(y=alt.Y(f"{y}:Q", title=title, axis=percent()))
    means = base.mark_tick(thickness=3, size=14).encode(
        y=f"mean({y}):Q", tooltip=["mixer:N", "treatment:N", rounded(f"mean({y})"), "count():Q"]
    )
    return alt.layer(runs, means).properties(width=1.6 * SIDE, height=SIDE)
