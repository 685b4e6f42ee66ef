"""Charts as Vega-Lite, through altair: for notebooks and papers with their tables, for pages whose scripts add them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import altair as alt

from statesize.measurement.chart import COLOURS, PALETTE, Axis, Chart, Hint, Layer, Role, json_number

_WIDTH = 640
PAPER = (234, 158)
"""Width and height of a figure in points: one of two columns."""
_PAPER_FONT = 8
_HOVER = alt.selection_point(name="hover", fields=["position"], on="pointerover", clear="pointerout", empty=False)
# Arguments of the scale and of the axis.
_SCALES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "linear": ({}, {}),
    "position": ({"nice": False, "zero": False}, {"tickCount": 10, "labelFlush": True}),
    "index": ({"domainMin": 0, "nice": False}, {"format": "d", "tickMinStep": 1}),
    "log": ({"type": "log"}, {}),
    "ratio": (
        {"type": "log"},
        {"format": ".0e", "values": [10.0**-decade for decade in range(13)], "labelOverlap": True},
    ),
    "share": ({"domain": [0, 1]}, {"format": "%", "tickCount": 5}),
    "names": ({}, {"labelAngle": 0, "labelOverlap": True}),
}


def vega_chart(chart: Chart, *, page: bool = False) -> alt.LayerChart:
    """A chart for a notebook, or for a page: as wide as its container, in the colours of the page's style sheet."""
    layers = [_layer(chart, layer, page) for layer in chart.shown]
    drawn = alt.LayerChart(layer=layers).properties(width="container" if page else _WIDTH, height=chart.height)
    if chart.title:
        drawn = drawn.properties(title=chart.title)
    if not chart.tables:
        return drawn
    datasets = {
        name: [{column: json_number(value) for column, value in row.items()} for row in rows]
        for name, rows in chart.tables.items()
    }
    return drawn.properties(datasets=alt.Datasets(**datasets))


def paper_chart(chart: Chart) -> alt.LayerChart:
    """A chart as wide as a column of a paper, without what a pointer finds; `.save("name.pdf")` writes it."""
    layers = tuple(layer for layer in chart.layers if layer.mark not in {"hover", "pointed"})
    # What a title would say stands in the caption.
    for_paper = replace(chart, layers=layers, title="")
    width, height = PAPER
    drawn = vega_chart(for_paper).properties(width=width, height=height)
    drawn = drawn.properties(autosize=alt.AutoSizeParams(type="fit", contains="padding"), padding=2)
    text = alt.AxisConfig(labelFontSize=_PAPER_FONT, titleFontSize=_PAPER_FONT, titleFontWeight="normal", grid=False)
    legend = alt.LegendConfig(labelFontSize=_PAPER_FONT - 1, symbolSize=30, columnPadding=6, offset=4)
    return drawn.configure(axis=text, legend=legend, view=alt.ViewConfig(stroke=None))


def _layer(chart: Chart, layer: Layer, page: bool) -> alt.Chart:
    base = alt.Chart(alt.NamedData(layer.table)).encode(**_encodings(chart, layer))
    tooltip = [_tooltip(hint) for hint in layer.hints or _hints(chart, layer) if _is_there(chart, layer, hint)]
    if chart.groups:
        if layer.mark == "rule":
            return base.mark_rule(strokeDash=[2, 3], color=_colour(layer.role, page))
        offset = alt.XOffset(f"{layer.by}:N", sort=list(chart.groups))
        return base.mark_bar().encode(xOffset=offset, color=_groups(chart, layer), tooltip=tooltip)
    # A constant role as a field, because Vega-Lite gives a datum no scale of its own.
    base = base.transform_calculate(role=f"'{layer.role}'").encode(color=_roles(chart, page))
    if layer.by:
        base = base.encode(detail=f"{layer.by}:N")
    faint = layer.role == "single heads"
    match layer.mark:
        case "area":
            return base.mark_area(opacity=0.16, line={"strokeWidth": 1, "opacity": 0.8})
        case "rule":
            return base.mark_rule(strokeDash=[2, 3], strokeWidth=1, opacity=0.75)
        case "band":
            horizontal = chart.y.scale == "ratio"
            marks = base.mark_area(opacity=0.3, orient="horizontal" if horizontal else "vertical")
            return marks.encode(x2=layer.end) if horizontal else marks.encode(y2=layer.end)
        case "hover":
            # Bars of full height: Vega-Lite's nearest selection loses text fields of a tooltip.
            return base.mark_rect(opacity=0).encode(x2=layer.end, tooltip=tooltip).add_params(_HOVER)
        case "pointed":
            shown = alt.when(_HOVER).then(alt.value(1)).otherwise(alt.value(0))
            return base.mark_point(filled=True, size=70).encode(opacity=shown)
        case _:
            point = alt.OverlayMarkDef(size=14 if faint else 60, opacity=1) if layer.points else False
            marks = base.mark_line(strokeWidth=1 if faint else 2.2, opacity=0.55 if faint else 1, point=point)
            return marks.encode(tooltip=tooltip)


def _encodings(chart: Chart, layer: Layer) -> dict[str, Any]:
    encodings: dict[str, Any] = {}
    if layer.x:
        kind = "N" if chart.x.scale == "names" else "Q"
        encodings["x"] = alt.X(f"{layer.x}:{kind}", sort=None, **_axis(chart.x))
    if layer.y:
        encodings["y"] = alt.Y(f"{layer.y}:Q", stack=None, **_axis(chart.y))
    return encodings


def _axis(axis: Axis) -> dict[str, Any]:
    scale, ticks = _SCALES[axis.scale]
    scales = {"scale": alt.Scale(**scale)} if scale else {}
    return {"title": axis.title, **scales, **({"axis": alt.Axis(**ticks)} if ticks else {})}


def _roles(chart: Chart, page: bool) -> alt.Color:
    roles: list[Role] = [role for role in COLOURS if any(layer.role == role for layer in chart.shown)]
    legend = alt.Legend(title=None, orient="top", symbolType="stroke", symbolStrokeWidth=3, symbolOpacity=1)
    scale = alt.Scale(domain=roles, range=[_colour(role, page) for role in roles])
    return alt.Color("role:N", scale=scale, legend=legend if chart.legend and len(roles) > 1 else None)


def _groups(chart: Chart, layer: Layer) -> alt.Color:
    names = list(chart.groups)
    colours = [PALETTE[index % len(PALETTE)] for index in range(len(names))]
    scale = alt.Scale(domain=names, range=colours)
    return alt.Color(f"{layer.by}:N", sort=names, scale=scale, legend=alt.Legend(title=None, orient="top"))


def _colour(role: Role, page: bool) -> str:
    return f"var(--{role.replace(' ', '-')})" if page else COLOURS[role]


def _hints(chart: Chart, layer: Layer) -> list[Hint]:
    named = [Hint(layer.by, layer.by, "text")] if layer.by else []
    return [*named, Hint(layer.x, chart.x.title, ".4~g"), Hint(layer.y, chart.y.title, ".4~g")]


def _is_there(chart: Chart, layer: Layer, hint: Hint) -> bool:
    return not chart.tables or hint.column in chart.tables[layer.table][0]


def _tooltip(hint: Hint) -> alt.Tooltip:
    if hint.form == "text":
        return alt.Tooltip(f"{hint.column}:N", title=hint.title)
    return alt.Tooltip(f"{hint.column}:Q", title=hint.title, format=hint.form)
