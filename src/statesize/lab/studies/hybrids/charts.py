"""The charts of the study of hybrids."""

from __future__ import annotations

from collections.abc import Sequence

import altair as alt

from statesize.lab.studies.grid.run import Row, layer_column
from statesize.lab.studies.hybrids.placements import PlacedRun, mean_ess, placed_runs
from statesize.lab.studies.page.charts import SIDE, chart_data, palette, percent, points, rounded

_FIRST = palette("first", "First attention layer")
_ROW = 14
"""Pixels of a placement, where there are many."""
_TOOLTIP = ["placement:N", "seed:Q", "rate:Q", rounded("accuracy", ".3f"), "early:Q"]


def hybrids_charts(rows: Sequence[Row], metric: str) -> alt.VConcatChart:
    """Accuracy and ESS per layer of each placement, accuracy over training, and early ESS against final accuracy."""
    runs = placed_runs(rows)
    finals = chart_data(_shown(found, metric) for found in runs)
    order = alt.EncodingSortField("accuracy", op="mean", order="descending")
    placement = alt.Y("placement:N", title="Layers", sort=order, axis=alt.Axis(labelLimit=300))
    accuracy = alt.X("accuracy:Q", title="Accuracy", axis=percent())
    base = alt.Chart(finals, title="Accuracy of each placement: runs and their mean").encode(y=placement)
    single = base.mark_point(filled=True, opacity=0.6).encode(
        x=accuracy, color=palette("attention", "Attention layers"), tooltip=_TOOLTIP
    )
    means = base.mark_tick(thickness=3, color="#808080").encode(x="mean(accuracy):Q")
    layers = chart_data(
        _shown(found, metric) | {"layer": layer, "ess": found.run.last[layer_column(metric, layer)]}
        for found in runs
        for layer in range(len(found.layers))
    )
    cells = alt.Chart(layers, title=f"ESS of the layers at the end ({metric})").encode(
        x=alt.X("layer:O", title="Layer", axis=alt.Axis(labelAngle=0)), y=alt.Y("placement:N", title=None, sort=order)
    )
    # The lighter half, on which black numbers can be read.
    blues = alt.Scale(scheme=alt.SchemeParams("blues", extent=[0, 0.5]))
    ess = cells.mark_rect().encode(color=alt.Color("mean(ess):Q", title="ESS", scale=blues))
    numbers = cells.mark_text().encode(text=alt.Text("mean(ess):Q", format=".1f"))
    early = points(
        finals,
        "What ESS shows early",
        alt.X("early:Q", title=f"ESS of the attention after 10 % of training ({metric})", scale=alt.Scale(zero=False)),
        alt.Y("accuracy:Q", title="Accuracy at the end", axis=percent()),
        _FIRST,
        _TOOLTIP,
    )
    height = max(SIDE, _ROW * len({found.placement for found in runs}))
    return alt.vconcat(
        alt.hconcat(
            (single + means).properties(width=SIDE, height=height),
            (ess + numbers).properties(width=SIDE, height=height),
        ).resolve_scale(color="independent"),
        alt.hconcat(_over_training(rows, runs), early),
    ).resolve_scale(color="independent")


def _over_training(rows: Sequence[Row], runs: Sequence[PlacedRun]) -> alt.Chart:
    """Mean accuracy of each placement by step."""
    placed = {found.run.last["run"]: _place(found) for found in runs}
    data = chart_data(
        {"step": row["step"], "accuracy": row["accuracy"]} | placed[row["run"]] for row in rows if row["run"] in placed
    )
    chart = alt.Chart(data, title="Accuracy over training, means").mark_line()
    return chart.encode(
        x=alt.X("step:Q", title="Step"),
        y=alt.Y("mean(accuracy):Q", title="Accuracy", axis=percent()),
        color=_FIRST,
        detail="placement:N",
        tooltip=["placement:N", "step:Q", rounded("mean(accuracy)", ".3f")],
    ).properties(width=SIDE, height=SIDE)


def _shown(found: PlacedRun, metric: str) -> dict[str, object]:
    return _place(found) | {
        "attention": found.attention,
        "rate": found.run.rate,
        "seed": found.run.seed,
        "accuracy": found.run.accuracy,
        "early": mean_ess(found, found.early, metric, attention=True),
    }


def _place(found: PlacedRun) -> dict[str, object]:
    return {"placement": found.placement, "first": str(found.places[0]) if found.places else "none"}
