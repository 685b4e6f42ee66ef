"""The charts of studies: each draws records, whose names are titles of axes and legends; hovering shows a record."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import altair as alt

from statesize.io.json_values import json_values
from statesize.lab.studies.engine.table import FinalRun, Row
from statesize.report.vega import PALETTE

SIDE = 300
"""Width and height of a chart, in pixels."""
SHARES = frozenset({"accuracy", "ESS / TSS", "depth"})
"""Quantities that are drawn as percentages."""
SHOWN = alt.TooltipContent("data")

Records: TypeAlias = Sequence[Mapping[str, object]]


def run_records(runs: Iterable[FinalRun]) -> list[Row]:
    """A record for each run: what it is, the share of its state that is used, and its accuracy."""
    return [
        {"mixer": run.mixer, "n": run.key_size, "kv": run.kv, "seed": run.seed}
        | {"ESS / TSS": run.share, "accuracy": run.accuracy}
        for run in runs
    ]


def chart(records: Records, title: str) -> alt.Chart:
    """An empty chart of some records."""
    return alt.Chart(alt.Data(values=json_values(list(records))), title=title).properties(width=SIDE, height=SIDE)


def quantity(name: str, shorthand: str | None = None) -> dict[str, Any]:
    """The options of an axis for a quantity, which need not begin at 0."""
    form = alt.Axis(format="%") if name in SHARES else alt.Axis()
    return {"shorthand": shorthand or f"{name}:Q", "title": name, "axis": form, "scale": alt.Scale(zero=False)}


def colour(name: str) -> alt.Color:
    """The colour of a name or of a number of few values, from the palette that all charts share."""
    return alt.Color(f"{name}:N", scale=alt.Scale(range=list(PALETTE)))


def points(records: Records, title: str, x: str, y: str, by: str, **more: Any) -> alt.Chart:
    """One quantity against another, each record a point."""
    drawn = chart(records, title).mark_point(filled=True, size=45, opacity=0.75, tooltip=SHOWN)
    return drawn.encode(x=alt.X(**quantity(x)), y=alt.Y(**quantity(y)), color=colour(by), **more)


def mean_lines(records: Records, title: str, x: str, y: str, by: str, dashed: str) -> alt.Chart:
    """Means of one quantity at each value of another, dashed by a name whose legend shows strokes."""
    legend = alt.Legend(labelLimit=400, symbolType="stroke", symbolSize=600, symbolStrokeColor="#888888")
    drawn = chart(records, title).mark_line(point=True, tooltip=SHOWN)
    dash = alt.StrokeDash(f"{dashed}:N", legend=legend)
    return drawn.encode(x=f"{x}:Q", y=alt.Y(**quantity(y, f"mean({y}):Q")), color=colour(by), strokeDash=dash)


def strip(records: Records, title: str, category: str, x: str, by: str, **more: Any) -> alt.LayerChart | alt.FacetChart:
    """A quantity in each category: its records, and ticks for their means."""
    rows = alt.Y(f"{category}:N", title=None, sort=None, axis=alt.Axis(labelLimit=400))
    base = chart(records, title).encode(y=rows, color=colour(by), **more)
    single = base.mark_point(filled=True, opacity=0.6, tooltip=SHOWN).encode(x=alt.X(**quantity(x)))
    means = base.mark_tick(thickness=3, tooltip=SHOWN).encode(x=alt.X(**quantity(x, f"mean({x}):Q")))
    height = max(SIDE, 14 * len({record[category] for record in records}))
    return alt.layer(single, means).properties(width=SIDE, height=height)
