"""The charts of the study of correlation."""

from __future__ import annotations

from collections.abc import Sequence

import altair as alt
import numpy as np

from statesize.lab.studies.grid.run import Row
from statesize.lab.studies.page.charts import chart_data, palette, percent, points
from statesize.lab.studies.page.final import FinalRun, final_runs, grouped, numbered
from statesize.lab.studies.page.statistics import within_cells

_SHOWN = ("mixer", "key_size", "kv", "rate", "seed", "accuracy")


def correlation_charts(rows: Sequence[Row], metric: str) -> alt.VConcatChart:
    """Accuracy against TSS/kv, ESS/kv, and ESS/kv inside cells, one row of charts a task."""
    drawn: list[alt.HConcatChart] = []
    for task, runs in grouped(final_runs(rows), lambda run: run.task).items():
        data = chart_data(_residuals(runs, metric))
        drawn.append(
            alt.hconcat(
                _scatter(data, "tss_kv", "TSS / kv", "accuracy", "Accuracy", f"{task}: size of the state"),
                _scatter(data, "ess_kv", f"ESS / kv ({metric})", "accuracy", "Accuracy", "Effective size of the state"),
                _scatter(
                    data,
                    "ess_left",
                    "ESS / kv less its mean in the cell",
                    "accuracy_left",
                    "Accuracy less its mean in the cell",
                    "Inside cells of equal TSS and kv",
                ),
            )
        )
    return alt.vconcat(*drawn)


def _residuals(runs: Sequence[FinalRun], metric: str) -> list[Row]:
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
        {name: run.last[name] for name in _SHOWN} | {name: column[index] for name, column in columns.items()}
        for index, run in enumerate(runs)
    ]


def _scatter(data: alt.Data, x: str, x_title: str, y: str, y_title: str, title: str) -> alt.Chart:
    chart = points(
        data,
        title,
        alt.X(f"{x}:Q", title=x_title, scale=alt.Scale(zero=False)),
        alt.Y(f"{y}:Q", title=y_title, axis=percent()),
        palette("mixer", "Mixer"),
        ["mixer:N", *(f"{name}:Q" for name in _SHOWN[1:]), f"{x}:Q"],
    )
    return chart.encode(shape=alt.Shape("key_size:N", title="n"))
