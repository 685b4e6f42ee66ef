"""The charts of the study of hybrids."""

from __future__ import annotations

from collections.abc import Sequence

import altair as alt

from statesize.drawing.chart import PALETTE, json_number
from statesize.studies.grid.run import Row, layer_column
from statesize.studies.hybrids.placements import PlacedRun, placed_runs

_SIDE = 300


def hybrids_charts(rows: Sequence[Row], metric: str) -> alt.VConcatChart:
    """Accuracy and ESS per layer of each placement, accuracy over training, and early ESS against final accuracy.

    Args:
        rows: All rows of the study.
        metric: Column of the ESS.

    Returns:
        The charts with their data.
    """
    runs = placed_runs(rows)
    finals = alt.Data(values=[_shown(found, metric) for found in runs])
    order = alt.EncodingSortField("accuracy", op="mean", order="descending")
    placement = alt.Y("placement:N", title="Layers", sort=order, axis=alt.Axis(labelLimit=300))
    accuracy = alt.X("accuracy:Q", title="Accuracy", axis=alt.Axis(format="%"))
    base = alt.Chart(finals, title="Accuracy of each placement: runs and their mean").encode(y=placement)
    points = base.mark_point(filled=True, opacity=0.6).encode(x=accuracy, color=_attention(), tooltip=_TOOLTIP)
    means = base.mark_tick(thickness=3, color="#808080").encode(x="mean(accuracy):Q")
    layers = alt.Data(values=[cell for found in runs for cell in _cells(found, metric)])
    cells = alt.Chart(layers, title=f"ESS of the layers at the end ({metric})").encode(
        x=alt.X("layer:O", title="Layer", axis=alt.Axis(labelAngle=0)), y=alt.Y("placement:N", title=None, sort=order)
    )
    ess = cells.mark_rect().encode(color=alt.Color("mean(ess):Q", title="ESS", scale=alt.Scale(scheme="blues")))
    numbers = cells.mark_text().encode(text=alt.Text("mean(ess):Q", format=".1f"))
    return alt.vconcat(
        alt.hconcat(
            (points + means).properties(width=_SIDE, height=_SIDE),
            (ess + numbers).properties(width=_SIDE, height=_SIDE),
        ).resolve_scale(color="independent"),
        alt.hconcat(_over_training(rows, runs), _foresight(finals, metric)),
    )


_TOOLTIP = ["placement:N", "seed:Q", "rate:Q", alt.Tooltip("accuracy:Q", format=".3f"), "early:Q"]


def _over_training(rows: Sequence[Row], runs: Sequence[PlacedRun]) -> alt.Chart:
    """Mean accuracy by step."""
    placed = {found.run.last["run"]: found for found in runs}
    values = [
        {"step": row["step"], "accuracy": json_number(row["accuracy"]), "placement": placed[row["run"]].placement}
        for row in rows
        if row["run"] in placed
    ]
    chart = alt.Chart(alt.Data(values=values), title="Accuracy over training, means").mark_line()
    return chart.encode(
        x=alt.X("step:Q", title="Step"),
        y=alt.Y("mean(accuracy):Q", title="Accuracy", axis=alt.Axis(format="%")),
        color=alt.Color("placement:N", title="Layers", legend=alt.Legend(labelLimit=300)),
        tooltip=["placement:N", "step:Q", alt.Tooltip("mean(accuracy):Q", format=".3f")],
    ).properties(width=_SIDE, height=_SIDE)


def _foresight(finals: alt.Data, metric: str) -> alt.Chart:
    chart = alt.Chart(finals, title="What ESS shows early").mark_point(filled=True, size=45, opacity=0.75)
    return chart.encode(
        x=alt.X("early:Q", title=f"ESS after 10 % of training ({metric})", scale=alt.Scale(zero=False)),
        y=alt.Y("accuracy:Q", title="Accuracy at the end", axis=alt.Axis(format="%")),
        color=_attention(),
        tooltip=_TOOLTIP,
    ).properties(width=_SIDE, height=_SIDE)


def _attention() -> alt.Color:
    return alt.Color("attention:N", title="Attention layers", scale=alt.Scale(range=list(PALETTE)))


def _shown(found: PlacedRun, metric: str) -> dict[str, object]:
    run = found.run
    return {
        "placement": found.placement,
        "attention": found.attention,
        "rate": run.rate,
        "seed": run.seed,
        "accuracy": json_number(run.accuracy),
        "early": json_number(found.early[metric]),
    }


def _cells(found: PlacedRun, metric: str) -> list[dict[str, object]]:
    return [
        {**_shown(found, metric), "layer": layer, "ess": json_number(found.run.last[layer_column(metric, layer)])}
        for layer in range(len(found.layers))
    ]
