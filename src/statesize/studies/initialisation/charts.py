"""The charts of the study of initialisation, as Vega-Lite through altair."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import altair as alt

from statesize.drawing.chart import PALETTE, json_number
from statesize.studies.grid.run import Row
from statesize.studies.initialisation.claim import Start
from statesize.studies.page.final import final_runs

_SIDE = 300


def initialisation_charts(rows: Sequence[Row], metric: str) -> alt.VConcatChart:
    """ESS at initialisation, ESS after training and accuracy against the size of the state, a row of charts a length.

    Args:
        rows: All rows of the study.
        metric: Column of the ESS.

    Returns:
        The charts with their data.
    """
    values = [
        {
            **{name: json_number(run.last[name]) for name in ("length", "key_size", "seed", "step")},
            "mixer": run.mixer,
            "start": Start.of(run.last).label,
            "initial": json_number(float(run.first[metric])),
            "ess": json_number(float(run.last[metric])),
            "accuracy": json_number(run.accuracy),
        }
        for run in final_runs(rows)
    ]
    drawn: list[alt.HConcatChart] = []
    for length in dict.fromkeys(value["length"] for value in values):
        here = [value for value in values if value["length"] == length]
        trained = [value for value in here if value["step"]]
        charts = [_lines(here, "initial", f"ESS ({metric})", f"ESS at initialisation, L = {length}")]
        if trained:
            charts += [
                _lines(trained, "ess", f"ESS ({metric})", "ESS after training"),
                _lines(trained, "accuracy", "Accuracy", "Accuracy"),
            ]
        drawn.append(alt.hconcat(*charts))
    return alt.vconcat(*drawn)


def _lines(values: Sequence[Mapping[str, object]], y: str, y_title: str, title: str) -> alt.Chart:
    return (
        alt.Chart(alt.Data(values=list(values)), title=title)
        .mark_line(point=True)
        .encode(
            x=alt.X("key_size:Q", title="Size of the state n", scale=alt.Scale(type="log", base=2)),
            y=alt.Y(f"mean({y}):Q", title=y_title, axis=alt.Axis(format="%") if y == "accuracy" else alt.Axis()),
            color=alt.Color("mixer:N", title="Mixer", scale=alt.Scale(range=list(PALETTE))),
            strokeDash=alt.StrokeDash("start:N", title="Start", legend=alt.Legend(labelLimit=400)),
            tooltip=["start:N", "key_size:Q", alt.Tooltip(f"mean({y}):Q", format=".2f"), "count():Q"],
        )
        .properties(width=_SIDE, height=_SIDE)
    )
