"""The charts of the study of regimes."""

from __future__ import annotations

from collections.abc import Sequence

import altair as alt

from statesize.lab.studies.grid.run import Row
from statesize.lab.studies.page.charts import SIDE, chart_data, mean_lines, percent

_SHOWN = ("mixer", "kv", "step", "accuracy")


def regimes_charts(rows: Sequence[Row], metric: str) -> alt.VConcatChart:
    """ESS/TSS and accuracy against difficulty, and both over training."""
    hardest: dict[str, int] = {}
    for row in rows:
        hardest[_setting(row)] = max(hardest.get(_setting(row), 0), int(row["kv"]))
    by_kv = chart_data(_shown(row, metric) for row in rows if row["final"])
    by_step = chart_data(_shown(row, metric) for row in rows if row["kv"] == hardest[_setting(row)])
    return alt.vconcat(
        alt.hconcat(
            _lines(by_kv, "kv", "Key-value pairs", "share", "ESS / TSS", "Share of the state, by difficulty"),
            _lines(by_kv, "kv", "Key-value pairs", "accuracy", "Accuracy", "Accuracy, by difficulty"),
        ),
        alt.hconcat(
            _lines(by_step, "step", "Step", "share", "ESS / TSS", "Share of the state, most pairs"),
            _lines(by_step, "step", "Step", "accuracy", "Accuracy", "Accuracy, most pairs"),
        ),
    )


def _setting(row: Row) -> str:
    extra = "" if row["intervention"] == "none" else f" {row['intervention']}"
    return f"{row['task']} L {row['length']} n {row['key_size']}{extra}"


def _shown(row: Row, metric: str) -> Row:
    share = float(row[metric]) / float(row["state_size"])
    return {name: row[name] for name in _SHOWN} | {"setting": _setting(row), "share": share}


def _lines(data: alt.Data, x: str, x_title: str, y: str, y_title: str, title: str) -> alt.Chart:
    place = alt.X(f"{x}:Q", title=x_title)
    chart = mean_lines(data, title, place, y, y_title, percent(), ["mixer:N", "setting:N", f"{x}:Q"])
    legend = alt.Legend(labelLimit=400, symbolType="stroke", symbolSize=400)
    stroke = alt.StrokeDash("setting:N", title="Setting", legend=legend)
    return chart.encode(strokeDash=stroke).properties(width=1.4 * SIDE)
