"""Charts by altair, in the colours and sizes that notebooks and pages share, and the tables that they show."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Literal, TypeAlias, cast

import altair as alt
import numpy as np
from numpy.typing import ArrayLike, NDArray

from statesize.check import require_choice
from statesize.measurement.statistics import between, evenly_spread, finite
from statesize.results.fields import arrays

Row: TypeAlias = dict[str, Any]
Tables: TypeAlias = Mapping[str, Sequence[Row]]
Bounds: TypeAlias = tuple[NDArray[Any], NDArray[Any]]
Role: TypeAlias = Literal["mean", "single heads", "ceiling", "special token"]
Metric: TypeAlias = Literal["entropy", "relative_count", "count"]
_METRICS: tuple[Metric, ...] = ("entropy", "relative_count", "count")
METRICS = {name: arrays()[name].meaning.removesuffix(".") for name in _METRICS}
"""What can be drawn over positions, with its title."""
COLOURS: dict[Role, str] = {
    "mean": "#0072B2",
    "single heads": "#7DB9DE",
    "ceiling": "#8C8C8C",
    "special token": "#D55E00",
}
# Okabe and Ito's palette, in an order whose neighbours differ most; each has contrast on white and on near-black.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8A63B8")
CHART_HEADS = 32
"""Single heads or channels that are drawn; evenly chosen where there are more."""
Layers: TypeAlias = Sequence[tuple[Role, alt.Chart]]
"""Marks over the same axes, each by the role that has its colour."""
_WIDTH, _NARROW = 640, 560
LOGARITHMIC = alt.Scale(type="log", nice=False, padding=20)
_HOVER = alt.selection_point(name="hover", fields=["position"], on="pointerover", clear="pointerout", empty=False)
_RATIO_AXIS = alt.Axis(format=".0e", values=[10.0**-decade for decade in range(13)], labelOverlap=True)


def metric_title(metric: str) -> str:
    """The title of one of METRICS; another metric is an InputError."""
    return METRICS[cast("Metric", require_choice("metric", metric, METRICS))]


def table(**columns: ArrayLike) -> list[Row]:
    """Rows from columns of equal length (N,); what is not known is None."""
    values = [np.asarray(column).tolist() for column in columns.values()]
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*values, strict=True)]
    return [{name: finite(value) if isinstance(value, float) else value for name, value in row.items()} for row in rows]


def position_tables(
    names: Sequence[str], positions: NDArray[Any], bounds: Bounds, ceiling: NDArray[Any], **columns: NDArray[Any]
) -> dict[str, list[Row]]:
    """Tables of `vega.positions_chart` where bounds of all heads, (heads, P) each, are known, with columns (P,)."""
    heads = (bounds[0] + bounds[1]) / 2
    inside = np.isfinite(heads).all(0)
    at, heads, top = positions[inside], heads[:, inside], ceiling[inside]
    low, high = (bound[:, inside].mean(0) for bound in bounds)
    mean, middles = heads.mean(0), (at[1:] + at[:-1]) / 2
    rows = table(
        position=at,
        # Where the pointer finds a position.
        left=np.append(at[:1], middles),
        right=np.append(middles, at[-1:]),
        ess=mean,
        said=[between(*ends, "{:.2f}".format) for ends in zip(low, high, strict=True)],
        ceiling=top,
        share=np.divide(mean, top, out=np.full(len(at), np.nan), where=top > 0),
        **{name: values[inside] for name, values in columns.items()},
    )
    shown = evenly_spread(len(names), CHART_HEADS) if len(names) > 1 else ()
    return {
        "positions": rows,
        # Points where a curve passes over cuts that were not measured.
        "cuts": rows if len(at) and np.ptp(at) >= len(at) else [],
        "heads": [{"head": names[head], **row} for head in shown for row in table(position=at, ess=heads[head])],
        "bounds": table(low=low, high=high, position=at) if (low < high).any() else [],
    }


def hint(column: str, title: str, form: str = "") -> alt.Tooltip:
    """What the pointer shows of a mark: a number in a form, or without one a text."""
    return alt.Tooltip(f"{column}:{'Q' if form else 'N'}", title=title, format=form or alt.Undefined)


def line(table: str, x: alt.X, y: alt.Y, *, by: str = "", faint: bool = False, points: bool = False) -> alt.Chart:
    """A line over a table, or one for each value of the column `by`."""
    point = alt.OverlayMarkDef(size=14 if faint else 60, opacity=1) if points else False
    marks = alt.Chart(alt.NamedData(table)).mark_line(
        strokeWidth=1 if faint else 2.2, opacity=0.55 if faint else 1, point=point
    )
    numbers = (alt.Tooltip(axis["shorthand"], title=axis["title"], format=".4~g") for axis in cast("Any", (x, y)))
    hints = [*([hint(by, by)] if by else []), *numbers]
    return marks.encode(x=x, y=y, tooltip=hints, **({"detail": f"{by}:N"} if by else {}))


def layered(
    layers: Layers, tables: Tables | None, title: str = "", height: int = 300, *, legend: bool = True
) -> alt.LayerChart:
    """Layers over the same axes, those in front last, without those of empty tables; None leaves tables to a page."""
    shown = [(role, marks) for role, marks in layers if tables is None or tables.get(marks.data.name)]
    roles: list[Role] = [role for role in COLOURS if any(role == shown_role for shown_role, _ in shown)]
    stroke = alt.Legend(title=None, orient="top", symbolType="stroke", symbolStrokeWidth=3, symbolOpacity=1)
    colour = alt.Color(
        "role:N",
        scale=alt.Scale(domain=roles, range=[COLOURS[role] for role in roles]),
        legend=stroke if legend and len(roles) > 1 else None,
    )
    # A constant role as a field, because Vega-Lite gives a datum no scale of its own.
    marks = [marks.transform_calculate(role=f"'{role}'").encode(color=colour) for role, marks in shown]
    return drawn(marks, tables, height, title)


def drawn(layers: Sequence[alt.Chart], tables: Tables | None, height: int, title: str = "") -> alt.LayerChart:
    """Layers with their data, in the size of a notebook."""
    chart = alt.LayerChart(layer=[*layers]).properties(width=_WIDTH, height=height, title=title)
    if tables is None:
        return chart
    return chart.properties(datasets=alt.Datasets(**cast("dict[str, list[Row]]", dict(tables))))


def by_name(column: str, rows: Sequence[Row], legend: alt.Legend | None) -> alt.Color:
    """A colour for each value of a column, in the order in which they come."""
    names = list(dict.fromkeys(str(row[column]) for row in rows))
    colours = [PALETTE[index % len(PALETTE)] for index in range(len(names))]
    return alt.Color(f"{column}:N", title=None, sort=names, scale=alt.Scale(domain=names, range=colours), legend=legend)


def estimates(
    rows: Sequence[Row], x: alt.X, y: alt.Y, by: str, hints: Sequence[alt.Tooltip], threshold: float
) -> alt.LayerChart:
    """Numbers with intervals from low to high, None where unknown, in a line and colour for each value of `by`."""
    legend = alt.Legend() if len({row[by] for row in rows}) > 1 else None
    base = alt.Chart(alt.Data(values=[*rows])).encode(x=x, color=by_name(by, rows, legend))
    across = alt.Chart(alt.Data(values=[{"at": threshold}])).mark_rule(strokeDash=[4, 4])
    layers = [across.encode(y=alt.Y("at:Q")), base.mark_line().encode(y=y)]
    # A layer without a number would have axes without ends.
    if any(row["low"] is not None for row in rows):
        layers.append(base.mark_rule().encode(y=alt.Y("low:Q"), y2="high:Q"))
    layers.append(base.mark_point(filled=True, size=70).encode(y=y, tooltip=list(hints)))
    return alt.LayerChart(layer=layers).properties(width=_NARROW, height=320)


def page_chart(chart: alt.LayerChart) -> dict[str, Any]:
    """The chart for a page: as wide as its container, in the colours of the page's style sheet, which has a title."""
    text = json.dumps(chart.properties(width="container", title="").to_dict())
    for role, colour in COLOURS.items():
        text = text.replace(f'"{colour}"', f'"var(--{role.replace(" ", "-")})"')
    return json.loads(text)


def _band(x: alt.X, y: partial[alt.Y]) -> alt.Chart:
    """The area between bounds."""
    marks = alt.Chart(alt.NamedData("bounds")).mark_area(opacity=0.3, orient="vertical")
    return marks.encode(x=x, y=y("low:Q"), y2="high")


def positions_chart(
    tables: Tables | None, title: str = "", metric: str = "ESS (numbers of state per channel)"
) -> alt.LayerChart:
    """ESS over positions against its ceiling, from `position_tables`."""
    scale, ticks = alt.Scale(nice=False, zero=False), alt.Axis(tickCount=10, labelFlush=True)
    x = partial(alt.X, title="Position in the sequence (tokens)", scale=scale, axis=ticks)
    y = partial(alt.Y, title=metric, stack=None)
    at, ess = x("position:Q"), y("ess:Q")
    rows, borders = alt.Chart(alt.NamedData("positions")), alt.Chart(alt.NamedData("borders"))
    ceiling = rows.mark_area(opacity=0.16, line={"strokeWidth": 1, "opacity": 0.8}).encode(x=at, y=y("ceiling:Q"))
    rules = borders.mark_rule(strokeDash=[2, 3], strokeWidth=1, opacity=0.75).encode(x=at)
    cuts = alt.Chart(alt.NamedData("cuts")).mark_point(filled=True, size=16, opacity=1).encode(x=at, y=ess)
    forms = {"token": "", "position": "d", "said": "", "ceiling": "d", "share": ".0%", "norm": ".3g"}
    titles = {"said": "ESS", "share": "of the ceiling"}
    hints = [hint(name, titles.get(name, name), form) for name, form in forms.items()]
    pointed = alt.when(_HOVER).then(alt.value(1)).otherwise(alt.value(0))
    # Bars of full height: Vega-Lite's nearest selection loses text fields of a tooltip.
    columns = rows.mark_rect(opacity=0).encode(x=x("left:Q"), x2="right", tooltip=hints).add_params(_HOVER)
    layers: Layers = [
        ("ceiling", ceiling),
        ("special token", rules),
        ("single heads", line("heads", at, ess, by="head", faint=True)),
        ("mean", _band(at, y)),
        ("mean", line("positions", at, ess)),
        ("mean", cuts),
        ("mean", rows.mark_point(filled=True, size=70).encode(x=at, y=ess, opacity=pointed)),
        ("mean", columns),
    ]
    return layered(layers, tables, title, 340)


def page_charts() -> dict[str, Any]:
    """The specifications of the charts of a head, without their data."""
    return {"positions": page_chart(positions_chart(None)), "tolerance": page_chart(_tolerance_chart())}


def _tolerance_chart() -> alt.LayerChart:
    """Counts against the relative tolerance; tolerance.js makes the tables."""
    ratio = alt.X("ratio:Q", title="Relative tolerance ρ", scale=alt.Scale(type="log"), axis=_RATIO_AXIS)
    y = partial(alt.Y, title=METRICS["relative_count"], stack=None)
    layers: Layers = [
        ("single heads", line("rungs", ratio, y("ess:Q"), by="head", faint=True)),
        ("mean", line("ladder", ratio, y("ess:Q"), points=True)),
        ("mean", _band(ratio, y)),
    ]
    return layered(layers, None, height=280)
