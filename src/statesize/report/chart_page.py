"""A page of one chart, its tables and what has to be known to read them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import altair as alt

from statesize.io.files import replace_file
from statesize.report.document import document, filled, numbers_table


@dataclass(frozen=True)
class ChartPage:
    """What stands on the page, as plain text."""

    title: str
    lead: str  # the result in one or two sentences
    heading: str  # of the chart
    label: str  # what the chart shows, for those who cannot see it
    caption: str
    tables: Sequence[tuple[Sequence[str], Sequence[Sequence[str]]]]  # headings and rows of each
    notes: Sequence[str]


def write_chart_page(page: ChartPage, chart: alt.VConcatChart, path: Path) -> None:
    """Write one HTML file; it is replaced once the new one is complete."""
    texts = {name: escape(getattr(page, name)) for name in ("title", "lead", "heading", "label", "caption")}
    scroll = '<div class="scroll tall" tabindex="0" role="region" aria-labelledby="charts-title">'
    tables = "".join(f"{scroll}{numbers_table(headings, rows)}</div>" for headings, rows in page.tables)
    notes = "".join(f"<p>{escape(note)}</p>" for note in page.notes)
    body = filled("chart_page.html", texts | {"tables": tables, "notes": notes})
    data = {"charts": chart.to_dict()}
    replace_file(path, document(page.title, body, data, ("draw.js", "study.js")).encode())
