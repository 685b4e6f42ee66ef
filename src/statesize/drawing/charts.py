"""Drawings as Vega-Lite charts, through altair."""

from __future__ import annotations

import altair as alt

from statesize.drawing.curves import COLOURS, Drawing, roles


def chart(drawing: Drawing) -> alt.LayerChart:
    """A chart for a notebook.

    Args:
        drawing: What is drawn.

    Returns:
        A chart with its data; the pointer shows a point's name and numbers.
    """
    names = list(roles(drawing))
    colour = alt.Color(
        "role:N",
        scale=alt.Scale(domain=names, range=[COLOURS[name] for name in names]),
        legend=alt.Legend(title=None, orient="top") if len(names) > 1 else None,
    )
    across = alt.X("x:Q", title=drawing.x_title, scale=_scale(drawing.log_x))
    up = alt.Y("y:Q", title=drawing.y_title, scale=_scale(drawing.log_y))
    tooltip = [
        alt.Tooltip("name:N", title="line"),
        alt.Tooltip("x:Q", title=drawing.x_title, format=".4~g"),
        alt.Tooltip("y:Q", title=drawing.y_title, format=".4~g"),
    ]
    layers: list[alt.Chart] = []
    # One layer a role, the mean in front.
    for name in reversed(names):
        rows = [
            {"x": float(x), "y": float(y), "name": line.name, "role": name}
            for line in drawing.curves
            if line.role == name
            for x, y in zip(line.x, line.y, strict=True)
        ]
        faint = name == "single heads"
        marks = alt.Chart(alt.Data(values=rows)).mark_line(
            strokeWidth=1 if faint else 2.2, opacity=0.55 if faint else 1, point=drawing.marked
        )
        layers.append(marks.encode(x=across, y=up, color=colour, detail="name:N", tooltip=tooltip))
    return alt.LayerChart(layer=layers, title=drawing.title, width=640, height=300)


def _scale(logarithmic: bool) -> alt.Scale:
    return alt.Scale(type="log") if logarithmic else alt.Scale(nice=False)
