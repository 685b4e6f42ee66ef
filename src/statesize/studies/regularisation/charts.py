"""The charts of the study of regularisation, as Vega-Lite through altair."""

from __future__ import annotations

from collections.abc import Sequence

import altair as alt

from statesize.drawing.chart import PALETTE, json_number
from statesize.studies.grid.run import Row
from statesize.studies.regularisation.claim import treated_runs, usual_steps

_SIDE = 300


def regularisation_charts(rows: Sequence[Row], metric: str) -> alt.VConcatChart:
    """Accuracy and ESS by treatment, and the one against the other, each run a point.

    Args:
        rows: All rows of the study.
        metric: Column of the ESS.

    Returns:
        The charts with their data.
    """
    runs = treated_runs(rows, metric)
    steps = usual_steps(runs)
    values = [
        {
            "mixer": found.run.mixer,
            "treatment": found.treatment.label(steps),
            "seed": found.run.seed,
            "accuracy": json_number(found.run.accuracy),
            "share": json_number(found.share),
        }
        for found in runs
    ]
    ordered = list(dict.fromkeys(str(value["treatment"]) for value in values))
    data = alt.Data(values=values)
    return alt.vconcat(
        alt.hconcat(
            _by_treatment(data, ordered, "accuracy", "Accuracy"),
            _by_treatment(data, ordered, "share", f"ESS / TSS ({metric})"),
        ),
        alt.hconcat(_against(data, ordered, metric)),
    )


def _by_treatment(data: alt.Data, ordered: list[str], y: str, title: str) -> alt.LayerChart | alt.FacetChart:
    base = alt.Chart(data, title=f"{title}, by treatment").encode(
        x=alt.X("treatment:N", title="Treatment", sort=ordered, axis=alt.Axis(labelLimit=300, labelAngle=-40)),
        xOffset="mixer:N",
        color=_mixers(),
        tooltip=["mixer:N", "treatment:N", "seed:Q", alt.Tooltip(f"{y}:Q", format=".2f")],
    )
    runs = base.mark_point(filled=True, size=30, opacity=0.6).encode(
        y=alt.Y(f"{y}:Q", title=title, axis=alt.Axis(format="%"))
    )
    means = base.mark_tick(thickness=3, size=14).encode(
        y=f"mean({y}):Q", tooltip=["mixer:N", "treatment:N", alt.Tooltip(f"mean({y}):Q", format=".2f"), "count():Q"]
    )
    return alt.layer(runs, means).properties(width=1.6 * _SIDE, height=_SIDE)


def _against(data: alt.Data, ordered: list[str], metric: str) -> alt.Chart:
    return (
        alt.Chart(data, title="Accuracy against ESS")
        .mark_point(filled=True, size=45, opacity=0.75)
        .encode(
            x=alt.X("share:Q", title=f"ESS / TSS ({metric})", axis=alt.Axis(format="%")),
            y=alt.Y("accuracy:Q", title="Accuracy", axis=alt.Axis(format="%")),
            color=_mixers(),
            shape=alt.Shape("treatment:N", title="Treatment", sort=ordered, legend=alt.Legend(labelLimit=400)),
            tooltip=["mixer:N", "treatment:N", "seed:Q", "accuracy:Q", "share:Q"],
        )
        .properties(width=1.6 * _SIDE, height=_SIDE)
    )


def _mixers() -> alt.Color:
    return alt.Color("mixer:N", title="Mixer", scale=alt.Scale(range=list(PALETTE)))
