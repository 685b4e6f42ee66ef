"""The charts of studies: each panel draws the records that have both its quantities; hovering shows a record."""

from __future__ import annotations

from typing import Any

import altair as alt

from statesize.io.json_values import json_values
from statesize.lab.studies.engine.study import Panel, Study
from statesize.lab.studies.engine.table import Row, StudyTable, grouped
from statesize.report.vega import PALETTE

SIDE, COLUMNS = 300, 3
"""Width and height of a chart in pixels, and charts side by side."""
SHARES = ("accuracy", "ESS / TSS", "depth", "share")
"""Beginnings of the names of quantities that are drawn as percentages."""
SHOWN = alt.TooltipContent("data")


def draw(study: Study, table: StudyTable) -> alt.VConcatChart:
    """A block of charts for each value of "row", with one for each panel that some of its records are drawn in."""
    records, panels = study.records(table), study.panels
    # One legend tells the colours of all charts where they tell the same.
    colours = "shared" if len({panel.colour for panel in panels}) == 1 else "independent"
    blocks = list[alt.ConcatChart]()
    for row, members in grouped(records, lambda record: str(record.get("row", ""))).items():
        chosen = ((panel, [record for record in members if {panel.x, panel.y} <= record.keys()]) for panel in panels)
        drawn = [_drawn(panel, own, row) for panel, own in chosen if own]
        blocks.append(alt.concat(*drawn, columns=COLUMNS).resolve_scale(color=colours))
    return alt.vconcat(*blocks).resolve_scale(color=colours)


def _quantity(name: str, field: str = "") -> dict[str, Any]:
    """The options of an axis for a quantity, which need not begin at 0; sizes n double."""
    if name == "n":
        return {"shorthand": "n:O", "axis": alt.Axis(labelAngle=0)}
    form = alt.Axis(format="%") if name.startswith(SHARES) else alt.Axis()
    return {"shorthand": f"{field or name}:Q", "title": name, "axis": form, "scale": alt.Scale(zero=False)}


def _drawn(panel: Panel, records: list[Row], title: str) -> alt.LayerChart | alt.FacetChart:
    scale, legend = alt.Scale(range=list(PALETTE)), alt.Legend(symbolOpacity=1, symbolType="circle")
    data, height, bounded = alt.Data(values=json_values(records)), SIDE, "low" in records[0]
    base = alt.Chart(data, title=title).encode(color=alt.Color(f"{panel.colour}:N", scale=scale, legend=legend))
    points = base.mark_point(filled=True, size=45, opacity=0.75, tooltip=SHOWN).encode(x=alt.X(**_quantity(panel.x)))
    if panel.lines:
        base = base.encode(x=alt.X(**_quantity(panel.x)), y=alt.Y(**_quantity(panel.y, f"mean({panel.y})")))
        strokes = alt.Legend(labelLimit=400, symbolType="stroke", symbolSize=600)
        dash = alt.StrokeDash(f"{panel.mark}:N", legend=strokes) if panel.mark else alt.Undefined
        ends = base.mark_point(filled=True, tooltip=SHOWN).encode(detail=f"{panel.mark or panel.colour}:N")
        layers = [base.mark_line().encode(strokeDash=dash), ends]
        bands = base.mark_area(opacity=0.15).encode(y=alt.Y("mean(low):Q", title=panel.y), y2="mean(high):Q")
        layers += [bands] if bounded else []
    elif isinstance(records[0][panel.y], str):
        rows, height = alt.Y(f"{panel.y}:N", title=None, sort=None), max(SIDE, 14 * len({r[panel.y] for r in records}))
        base = base.encode(y=rows, yOffset=f"{panel.colour}:N")
        means = base.mark_tick(thickness=3, tooltip=SHOWN).encode(x=alt.X(**_quantity(panel.x, f"mean({panel.x})")))
        rules = base.mark_rule(strokeWidth=2).encode(x=alt.X("low:Q", title=panel.x), x2="high:Q")
        layers = [points.encode(y=rows, yOffset=f"{panel.colour}:N"), rules if bounded else means]
    else:
        shape = f"{panel.mark}:N" if panel.mark else alt.Undefined
        layers = [points.encode(y=alt.Y(**_quantity(panel.y)), shape=shape)]
    return alt.layer(*layers).properties(width=SIDE, height=height)
