"""Pieces that the charts of all studies share, as Vega-Lite through altair."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import altair as alt

from statesize.measurement.chart import PALETTE, json_number

SIDE = 300
"""Width and height of a chart, in pixels."""


def chart_data(rows: Iterable[Mapping[str, object]]) -> alt.Data:
    """Rows as JSON holds them: numbers of four digits, None for NaN."""
    return alt.Data(values=[{name: json_number(value) for name, value in row.items()} for row in rows])


def palette(field: str, title: str) -> alt.Color:
    """The colour of a named field, from the palette that all charts share."""
    return alt.Color(f"{field}:N", title=title, scale=alt.Scale(range=list(PALETTE)))


def percent() -> alt.Axis:
    """An axis of percentages."""
    return alt.Axis(format="%")


def rounded(field: str, form: str = ".2f") -> alt.Tooltip:
    """A number in a tooltip."""
    return alt.Tooltip(f"{field}:Q", format=form)


def points(
    data: alt.Data, title: str, x: alt.X, y: alt.Y, color: alt.Color, tooltip: Sequence[str | alt.Tooltip]
) -> alt.Chart:
    """One number against another, each row a point."""
    chart = alt.Chart(data, title=title).mark_point(filled=True, size=45, opacity=0.75)
    return chart.encode(x=x, y=y, color=color, tooltip=list(tooltip)).properties(width=SIDE, height=SIDE)


def mean_lines(
    data: alt.Data, title: str, x: alt.X, y: str, y_title: str, axis: alt.Axis, tooltip: Sequence[str]
) -> alt.Chart:
    """Means of the column `y` at each value of x, a line a mixer; `tooltip` names further columns to show."""
    shown = [*tooltip, rounded(f"mean({y})"), "count():Q"]
    means = alt.Y(f"mean({y}):Q", title=y_title, axis=axis)
    chart = alt.Chart(data, title=title).mark_line(point=True)
    chart = chart.encode(x=x, y=means, color=palette("mixer", "Mixer"), tooltip=shown)
    return chart.properties(width=SIDE, height=SIDE)
