"""The charts of studies. Each draws records, whose names are the titles of its axes and legends; hovering shows all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import altair as alt

from statesize.measurement.chart import PALETTE, json_number

SIDE = 300
"""Width and height of a chart, in pixels."""
SHARES = frozenset({"accuracy", "ESS / TSS", "utilisation", "depth"})
"""Quantities that are drawn as percentages."""

Records: TypeAlias = Sequence[Mapping[str, object]]


def chart(records: Records, title: str) -> alt.Chart:
    """An empty chart of some records."""
    data = alt.Data(values=[{name: json_number(value) for name, value in record.items()} for record in records])
    # Only what all records have: a column that another run lacks is no number there.
    shared = [name for name in records[0] if all(name in record for record in records)] if records else []
    return alt.Chart(data, title=title).encode(tooltip=[_typed(records, name) for name in shared])


def axis(name: str, **options: Any) -> dict[str, Any]:
    """The options of an axis of a quantity, which need not begin at 0."""
    shown = alt.Axis(format="%") if name.removeprefix("mean(").removesuffix(")") in SHARES else alt.Axis()
    return {"shorthand": f"{name}:Q", "axis": shown, "scale": alt.Scale(zero=False), **options}


def colour(name: str) -> alt.Color:
    """The colour of a name or of a number of few values, from the palette that all charts share."""
    return alt.Color(f"{name}:N", scale=alt.Scale(range=list(PALETTE)))


def points(records: Records, title: str, x: str, y: str, by: str, **more: Any) -> alt.Chart:
    """One quantity against another, each record a point."""
    drawn = chart(records, title).mark_point(filled=True, size=45, opacity=0.75).properties(width=SIDE, height=SIDE)
    return drawn.encode(x=alt.X(**axis(x)), y=alt.Y(**axis(y)), color=colour(by), **more)


def mean_lines(records: Records, title: str, x: str, y: str, by: str, **more: Any) -> alt.Chart:
    """Means of one quantity at each value of another."""
    shown = [f"{by}:N", f"{x}:Q", alt.Tooltip(f"mean({y}):Q", format=".3f"), "count():Q"]
    drawn = chart(records, title).mark_line(point=True).properties(width=SIDE, height=SIDE)
    means = alt.Y(**axis(f"mean({y})", title=y))
    return drawn.encode(x=alt.X(f"{x}:Q"), y=means, color=colour(by), tooltip=shown, **more)


def dash(name: str) -> alt.StrokeDash:
    """How lines are dashed, with a legend that shows strokes."""
    return alt.StrokeDash(f"{name}:N", legend=alt.Legend(labelLimit=400, symbolType="stroke", symbolSize=600))


def strip(records: Records, title: str, category: str, x: str, by: str, **more: Any) -> alt.LayerChart | alt.FacetChart:
    """A quantity in each category: its records, and ticks for their means."""
    base = chart(records, title).encode(
        y=alt.Y(f"{category}:N", title=None, sort=None, axis=alt.Axis(labelLimit=400)), color=colour(by), **more
    )
    single = base.mark_point(filled=True, opacity=0.6).encode(x=alt.X(**axis(x)))
    means = base.mark_tick(thickness=3).encode(x=f"mean({x}):Q", tooltip=[f"{category}:N", f"mean({x}):Q", "count():Q"])
    height = max(SIDE, 14 * len({record[category] for record in records}))
    return alt.layer(single, means).properties(width=SIDE, height=height)


def _typed(records: Records, name: str) -> str:
    numbers = all(isinstance(record[name], int | float) for record in records)
    return f"{name}:{'Q' if numbers else 'N'}"
