"""The page of a result: what was found, its charts and tables, what has to be known, and how the numbers were made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from os import PathLike
from pathlib import Path
from typing import Any, ClassVar, Protocol

from statesize.check import require_path
from statesize.io.files import check_report_path, replace_file
from statesize.report.document import Section, document
from statesize.report.table import PageTable, cell_text, html_table


class PageFigure(Protocol):
    """What scripts draw on a page from its data."""

    scripts: ClassVar[tuple[str, ...]]

    @property
    def title(self) -> str:
        """Its heading."""
        ...

    @property
    def data(self) -> object:
        """What the scripts draw, as JSON values."""
        ...

    def html(self, key: str) -> str:
        """Where they draw it, with the `key` of its data."""
        ...


@dataclass(frozen=True)
class PageChart:
    """A chart on a page, as a specification of Vega-Lite."""

    title: str
    chart: Mapping[str, Any]
    caption: str = ""
    scripts: ClassVar[tuple[str, ...]] = ("result.js",)

    @property
    def data(self) -> object:
        """The specification."""
        return self.chart

    def html(self, key: str) -> str:
        """The chart above its caption."""
        title = escape(self.title, quote=True)
        drawn = f'<div class="chart fixed" id="{key}" role="group" aria-label="{title}"></div>'
        return f"<figure>{_scrolled(key, drawn)}<figcaption>{escape(self.caption)}</figcaption></figure>"


RESULT = "Result"
"""The heading of notes above the charts."""
# A first table of so many rows and columns is read at a glance, and stands above the charts.
_ROWS, _COLUMNS = 6, 8


@dataclass(frozen=True)
class ResultPage:
    """What stands on a page, as plain text: what was found and means, then charts and notes, then folded details.

    Attributes:
        title: Its heading.
        finding: The result in one or two sentences, the first line of which is strong; or a line for each model.
        charts: The charts.
        tables: At least one. The first is in sight: above the charts where it is small, folded where it is wide. The
            others are folded.
        notes: What has to be known, as sentences by their heading; below the charts, but for RESULT.
        facts: How the numbers were made, by name; folded.
    """

    title: str
    finding: str
    charts: Sequence[PageFigure]
    tables: Sequence[PageTable]
    notes: Mapping[str, Sequence[str]] = field(default_factory=dict[str, Sequence[str]])
    facts: Mapping[str, str] = field(default_factory=dict[str, str])

    def write(self, path: str | PathLike[str]) -> Path:
        """Write one HTML file; it is replaced once the new one is complete."""
        path = require_path("path", path)
        check_report_path(path)
        replace_file(path, self.render().encode())
        return path

    def render(self) -> str:
        """The page as HTML."""
        charts = {f"chart-{index}": figure for index, figure in enumerate(self.charts)}
        notes = [
            Section(f"notes-{index}", title, _items(texts) if texts else "")
            for index, (title, texts) in enumerate(self.notes.items())
        ]
        wide = len(self.tables[0].headings) > _COLUMNS
        small = not wide and len(self.tables[0].rows) <= _ROWS
        first, *others = (
            Section(key := f"table-{index}", table.title, _table(key, table, small and not index), wide or bool(index))
            for index, table in enumerate(self.tables)
        )
        sections = [
            *([first] if small else []),
            *(note for note in notes if note.title == RESULT),
            *(Section(key, figure.title, figure.html(key)) for key, figure in charts.items()),
            *(note for note in notes if note.title != RESULT),
            *([] if small else [first]),
            *others,
            Section("facts", "How these numbers were made", _listed(self.facts) if self.facts else "", folded=True),
        ]
        data = {key: figure.data for key, figure in charts.items()}
        scripts = dict.fromkeys(("draw.js", *(name for figure in self.charts for name in figure.scripts), "table.js"))
        return document(
            self.title, self.finding, [section for section in sections if section.content], data, list(scripts)
        )


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


def _items(texts: Sequence[str]) -> str:
    return f"<ul>{''.join(f'<li>{escape(text)}</li>' for text in texts)}</ul>"


def _scrolled(key: str, content: str, kind: str = "scroll") -> str:
    """What may be larger than the screen, in the section `key`."""
    return f'<div class="{kind}" tabindex="0" role="region" aria-labelledby="{key}-title">{content}</div>'


def _listed(named: Mapping[str, str]) -> str:
    """Texts by their names."""
    return f"<dl>{''.join(f'<dt>{escape(name)}</dt><dd>{escape(text)}</dd>' for name, text in named.items())}</dl>"


def _table(key: str, table: PageTable, small: bool) -> str:
    """A table below its caption, and what its columns say; table.js saves its rows, and filters those of many."""
    about = f"<p>{escape(table.caption)}</p>" if table.caption else ""
    terms = f"<details><summary>What the columns say</summary>{_listed(table.terms)}</details>" if table.terms else ""
    shown = _scrolled(key, html_table(table.headings, table.rows), "scroll tall")
    return about + (shown + _TOOLS.format("") if small else _TOOLS.format(_SEARCH) + shown) + terms


_SEARCH = '<label>Rows with <input type="search" placeholder="part of a text"></label>'
_TOOLS = """
<form class="choices tools" autocomplete="off" hidden>{}
<button type="button">Download these rows as CSV</button> <output class="hint"></output></form>"""
