"""The page of a result: one HTML file that holds everything it needs, and may load nothing."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from importlib import resources
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple, cast

from statesize.check import require_path
from statesize.io.files import check_report_path, replace_file
from statesize.report.table import PageTable, cell_text, html_table

RESULT = "Result"
"""The heading of notes above the charts."""
# A first table of so many rows and columns is read at a glance, and stands above the charts.
_ROWS, _COLUMNS = 6, 8


@dataclass(frozen=True)
class PageChart:
    """What scripts draw on a page from data, a specification of Vega-Lite.

    Attributes:
        title: Its heading.
        data: What the scripts draw, as JSON values.
        caption: Below it.
        template: The file of its HTML.
        scripts: The files that draw it.
    """

    title: str
    data: Mapping[str, Any]
    caption: str = ""
    template: str = "chart.html"
    scripts: tuple[str, ...] = ("result.js",)


class _Section(NamedTuple):
    """A part of a page, as HTML, under its heading, whose id is `key`-title; a folded one shows its heading alone."""

    key: str
    title: str
    content: str
    folded: bool = False

    @property
    def html(self) -> str:
        heading = f'<h2 id="{self.key}-title">{escape(self.title)}</h2>'
        folded = f"<details><summary>{heading}</summary>{self.content}</details>"
        return (
            f'<section aria-labelledby="{self.key}-title">{folded if self.folded else heading + self.content}</section>'
        )


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
    charts: Sequence[PageChart]
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
        """The page as HTML, whose policy forbids remote content, evaluated code, and any script but its own."""
        charts = {f"chart-{index}": chart for index, chart in enumerate(self.charts)}
        sections = self._sections(charts)
        names = dict.fromkeys(("draw.js", *(name for chart in self.charts for name in chart.scripts), "table.js"))
        scripts = [vega(), *map(resource, names)]
        digests = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
        first, *others = self.finding.split("\n")
        links = [(section.key, section.title) for section in sections if not section.folded]
        # One link leads to all that is folded.
        links += [(section.key, "Details") for section in sections if section.folded][:1]
        parts = {
            "hashes": " ".join(f"'sha256-{digest}'" for digest in digests),
            "title": escape(self.title),
            "style": resource("page.css"),
            "finding": f"<p><strong>{escape(first)}</strong></p>" + (_listed(others) if others else ""),
            "links": " ".join(f'<a href="#{key}-title">{escape(name)}</a>' for key, name in links),
            "sections": "\n".join(section.html for section in sections),
            "data": embedded_json({key: chart.data for key, chart in charts.items()}),
            "scripts": "\n".join(f"<script>{script}</script>" for script in scripts),
        }
        return filled("frame.html", parts)

    def _sections(self, charts: Mapping[str, PageChart]) -> list[_Section]:
        """All parts, in their order."""
        notes = {
            title: _Section(f"notes-{index}", title, _listed(texts))
            for index, (title, texts) in enumerate(self.notes.items())
            if texts
        }
        result = [notes.pop(RESULT)] if RESULT in notes else []
        drawn = [
            _Section(key, chart.title, filled(chart.template, {"key": key, "title": escape(chart.title),
                     "caption": escape(chart.caption)}))
            for key, chart in charts.items()
        ]  # fmt: skip
        wide = len(self.tables[0].headings) > _COLUMNS
        tables = [
            _Section(key := f"table-{index}", table.title, _table(key, table), wide or index > 0)
            for index, table in enumerate(self.tables)
        ]
        above = 1 if not wide and len(self.tables[0].rows) <= _ROWS else 0
        facts = [_Section("facts", "How these numbers were made", _defined(self.facts), True)] if self.facts else []
        return [*tables[:above], *result, *drawn, *notes.values(), *tables[above:], *facts]


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
    facts = {name: text for name, text in shared.items() if text not in {"", "–"}}
    return PageTable(title, differing, shown, caption), facts


_LAST = ("seconds", "message", "versions", "run")


def _listed(texts: Sequence[str]) -> str:
    return f"<ul>{''.join(f'<li>{escape(text)}</li>' for text in texts)}</ul>"


def _defined(texts: Mapping[str, str]) -> str:
    return f"<dl>{''.join(f'<dt>{escape(name)}</dt><dd>{escape(text)}</dd>' for name, text in texts.items())}</dl>"


def _table(key: str, table: PageTable) -> str:
    """A table below its caption, and what its columns say."""
    terms = f"<details><summary>What the columns say</summary>{_defined(table.terms)}</details>" if table.terms else ""
    about = f"<p>{escape(table.caption)}</p>" if table.caption else ""
    parts = {"about": about, "key": key, "table": html_table(table.headings, table.rows), "terms": terms}
    return filled("table.html", parts)


def filled(template: str, parts: Mapping[str, str]) -> str:
    """A file of this package with HTML instead of its comments, by their text."""
    # All at once, so that no part is searched for the comments of others.
    return re.sub("<!-- ([a-z-]+) -->", lambda comment: parts[comment[1]], resource(template))


def embedded_json(data: object) -> str:
    """JSON that no HTML parser can leave: `<`, `>` and `&` are written as escapes."""
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return re.sub("[<>&\u2028\u2029]", lambda sign: f"\\u{ord(sign[0]):04x}", text)


def vega() -> str:
    """Vega, Vega-Lite and their embedding as one script."""
    # Commands use this module for tables too.
    import vl_convert

    # A closing tag inside the libraries' strings would end the script element.
    # The stub forgets that the snippet has a default.
    bundle = cast("str", vl_convert.javascript_bundle())  # pyright: ignore[reportCallIssue]
    return bundle.replace("</script", "<\\/script").replace("<!--", "<\\!--")


def resource(name: str) -> str:
    """The text of a file of this package."""
    return (resources.files("statesize.report") / name).read_text(encoding="utf-8")
