"""The charts of studies, as Vega-Lite through altair."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import altair as alt
import numpy as np

from statesize.drawing.chart import PALETTE, json_number
from statesize.studies.grid.run import Row
from statesize.studies.page.final import FinalRun, final_runs, numbered
from statesize.studies.page.statistics import within_cells

_SIDE = 300


def correlation_charts(rows: Sequence[Row], metric: str) -> alt.VConcatChart:
    """Accuracy against TSS/kv, ESS/kv, and ESS/kv inside cells, one row of charts a task.

    Args:
        rows: All rows of the study.
        metric: Column of the ESS.

    Returns:
        The charts with their data.
    """
    runs = final_runs(rows)
    drawn: list[alt.HConcatChart] = []
    for task in dict.fromkeys(run.task for run in runs):
        data = alt.Data(values=_residuals([run for run in runs if run.task == task], metric))
        drawn.append(
            alt.hconcat(
                _scatter(data, "tss_kv", "accuracy", "TSS / kv", "Accuracy", f"{task}: size of the state"),
                _scatter(data, "ess_kv", "accuracy", f"ESS / kv ({metric})", "Accuracy", "Effective size of the state"),
                _scatter(
                    data,
                    "ess_left",
                    "accuracy_left",
                    "ESS / kv less its mean in the cell",
                    "Accuracy less its mean in the cell",
                    "Inside cells of equal TSS and kv",
                ),
            )
        )
    return alt.vconcat(*drawn)


def regimes_charts(rows: Sequence[Row], metric: str) -> alt.VConcatChart:
    """ESS/TSS and accuracy against difficulty, and both over training.

    Args:
        rows: All rows of the study.
        metric: Column of the ESS.

    Returns:
        The charts with their data.
    """
    measured = [{**_shown(row), "setting": _setting(row), "share": _share(row, metric)} for row in rows]
    finals = [row for row in measured if row["final"]]
    most: dict[object, int] = {}
    for row in measured:
        most[row["setting"]] = max(most.get(row["setting"], 0), cast("int", row["kv"]))
    by_kv = alt.Data(values=finals)
    by_step = alt.Data(values=[row for row in measured if row["kv"] == most[row["setting"]]])
    return alt.vconcat(
        alt.hconcat(
            _lines(by_kv, "kv", "share", "Key-value pairs", "ESS / TSS", "Share of the state, by difficulty"),
            _lines(by_kv, "kv", "accuracy", "Key-value pairs", "Accuracy", "Accuracy, by difficulty"),
        ),
        alt.hconcat(
            _lines(by_step, "step", "share", "Step", "ESS / TSS", "Share of the state, most pairs"),
            _lines(by_step, "step", "accuracy", "Step", "Accuracy", "Accuracy, most pairs"),
        ),
    )


def _residuals(runs: Sequence[FinalRun], metric: str) -> list[dict[str, object]]:
    cells = numbered([run.cell for run in runs])
    ess = np.array([float(run.last[metric]) / run.kv for run in runs])
    accuracy = np.array([run.accuracy for run in runs])
    columns = {
        "tss_kv": np.array([run.state_size / run.kv for run in runs]),
        "ess_kv": ess,
        "ess_left": within_cells(ess, cells),
        "accuracy_left": within_cells(accuracy, cells),
    }
    return [
        {**_shown(run.last), **{name: json_number(column[index]) for name, column in columns.items()}}
        for index, run in enumerate(runs)
    ]


def _setting(row: Row) -> str:
    extra = "" if row["intervention"] == "none" else f" {row['intervention']}"
    return f"{row['task']} L {row['length']} n {row['key_size']}{extra}"


def _share(row: Row, metric: str) -> object:
    return json_number(float(row[metric]) / float(row["state_size"]))


def _shown(row: Row) -> dict[str, object]:
    shown = ("task", "kv", "mixer", "key_size", "rate", "seed", "step", "final", "accuracy")
    return {name: json_number(row[name]) for name in shown}


def _scatter(data: alt.Data, x: str, y: str, x_title: str, y_title: str, title: str) -> alt.Chart:
    return (
        alt.Chart(data, title=title)
        .mark_point(filled=True, size=45, opacity=0.75)
        .encode(
            x=alt.X(f"{x}:Q", title=x_title, scale=alt.Scale(zero=False)),
            y=alt.Y(f"{y}:Q", title=y_title, axis=alt.Axis(format="%")),
            color=_mixers(),
            shape=alt.Shape("key_size:N", title="n"),
            tooltip=["mixer:N", "key_size:Q", "kv:Q", "rate:Q", "seed:Q", "accuracy:Q", f"{x}:Q"],
        )
        .properties(width=_SIDE, height=_SIDE)
    )


def _lines(data: alt.Data, x: str, y: str, x_title: str, y_title: str, title: str) -> alt.Chart:
    base = alt.Chart(data, title=title).encode(
        x=alt.X(f"{x}:Q", title=x_title), y=alt.Y(f"mean({y}):Q", title=y_title, axis=alt.Axis(format="%"))
    )
    chart = base.mark_line(point=True).encode(
        color=_mixers(),
        strokeDash=alt.StrokeDash(
            "setting:N", title="Setting", legend=alt.Legend(labelLimit=400, symbolType="stroke", symbolSize=400)
        ),
        tooltip=["mixer:N", "setting:N", f"{x}:Q", alt.Tooltip(f"mean({y}):Q", format=".2f"), "count():Q"],
    )
    return chart.properties(width=1.4 * _SIDE, height=_SIDE)


def _mixers() -> alt.Color:
    return alt.Color("mixer:N", title="Mixer", scale=alt.Scale(range=list(PALETTE)))
