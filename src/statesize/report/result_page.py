"""The page of a result: what was found, its charts and tables, what has to be known, and how the numbers were made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

from statesize.io.files import replace_file
from statesize.report.document import (
    cell_text,
    check_report_path,
    definitions,
    document,
    filtered,
    html_table,
    scrolled,
    section,
)

SCRIPTS = ("draw.js", "result.js", "table.js")


@dataclass(frozen=True)
class PageChart:
    """A chart on a page, as a specification of Vega-Lite."""

    title: str
    chart: Mapping[str, Any]
    caption: str = ""


@dataclass(frozen=True)
class PageTable:
    """A table on a page; a cell is a text, a number, or None where it is not known."""

    title: str
    headings: Sequence[str]
    rows: Sequence[Sequence[object]]
    caption: str = ""


@dataclass(frozen=True)
class ResultPage:
    """What stands on a page, in its order, as plain text.

    Attributes:
        title: Its heading.
        finding: The result in one or two sentences.
        charts: The charts.
        tables: At least one; the rows of the first can be searched, and taken as CSV. They stand below the notes.
        notes: What has to be known, as sentences by their heading.
        facts: How the numbers were made, by name.
    """

    title: str
    finding: str
    charts: Sequence[PageChart]
    tables: Sequence[PageTable]
    notes: Mapping[str, Sequence[str]] = field(default_factory=dict[str, Sequence[str]])
    facts: Mapping[str, str] = field(default_factory=dict[str, str])

    def write(self, path: Path) -> Path:
        """Write one HTML file; it is replaced once the new one is complete."""
        check_report_path(path)
        replace_file(path, self.render().encode())
        return path

    def render(self) -> str:
        """The page as HTML."""
        head = f'<h1>{escape(self.title)}</h1><p class="lead"><strong>{escape(self.finding)}</strong></p>'
        charts = "".join(_chart(f"chart-{index}", one) for index, one in enumerate(self.charts))
        first, *others = self.tables
        parts = [
            f'<div id="charts">{charts}</div>',
            *(_notes(f"notes-{index}", *one) for index, one in enumerate(self.notes.items())),
            section("table", first.title, _about(first) + filtered(html_table(first.headings, first.rows, "rows"))),
            *(_table(f"table-{index}", one) for index, one in enumerate(others)),
        ]
        if self.facts:
            parts.append(section("facts", "How these numbers were made", f"<dl>{definitions(self.facts)}</dl>"))
        data = {"charts": [one.chart for one in self.charts]}
        return document(self.title, head, "\n".join(parts), data, SCRIPTS)


_LAST = ("seconds", "message", "versions", "run")


def told_apart(
    rows: Sequence[Mapping[str, object]], title: str, caption: str = "", most: int | None = None
) -> tuple[PageTable, dict[str, str]]:
    """The first `most` rows in the columns that differ, with long ones last, and what all rows share as facts."""
    names = dict.fromkeys(name for row in rows for name in row if name != "settings")
    texts = {name: [cell_text(row.get(name)) for row in rows] for name in names}
    differing = [name for name, cells in texts.items() if len(set(cells)) > 1]
    differing.sort(key=lambda name: _LAST.index(name) if name in _LAST else -1)
    shared = {name.replace("_", " "): cells[0] for name, cells in texts.items() if len(set(cells)) == 1}
    shown = [[row.get(name) for name in differing] for row in rows[:most]]
    return PageTable(title, differing, shown, caption), {
        name: text for name, text in shared.items() if text not in {"", "–"}
    }


def _chart(key: str, one: PageChart) -> str:
    title = escape(one.title, quote=True)
    drawn = f'<div class="chart" id="{key}" role="group" aria-label="{title}"></div>'
    box = f'<div class="scroll" tabindex="0" role="region" aria-labelledby="{key}-title">{drawn}</div>'
    return section(key, one.title, f"<figure>{box}<figcaption>{escape(one.caption)}</figcaption></figure>")


def _about(one: PageTable) -> str:
    return f"<p>{escape(one.caption)}</p>" if one.caption else ""


def _table(key: str, one: PageTable) -> str:
    return section(key, one.title, _about(one) + scrolled(key, html_table(one.headings, one.rows)))


def _notes(key: str, title: str, notes: Sequence[str]) -> str:
    items = "".join(f"<li>{escape(note)}</li>" for note in notes)
    return section(key, title, f"<ul>{items}</ul>") if items else ""
