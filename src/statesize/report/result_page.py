"""The page of a result: one HTML file that holds everything it needs, and may load nothing."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple, cast

from jinja2 import Environment, FunctionLoader, StrictUndefined

from statesize.check import require_path
from statesize.io.files import check_report_path, replace_file
from statesize.report.table import PageTable, html_table

RESULT = "Result"
"""The heading of notes above the charts."""
# A first table of so many rows and columns is read at a glance, and stands above the charts.
_ROWS, _COLUMNS = 6, 9


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
    """A part of a page under its heading, whose id is `key`-title; a folded one shows its heading alone."""

    key: str
    title: str
    template: str
    content: Any
    folded: bool = False


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
        names = dict.fromkeys(("draw.js", *(name for chart in self.charts for name in chart.scripts), "table.js"))
        scripts = [vega(), *map(resource, names)]
        digests = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
        frame = _templates().get_template("frame.html")
        return frame.render(
            page=self,
            html_table=html_table,
            sections=self._sections(),
            hashes=" ".join(f"'sha256-{digest}'" for digest in digests),
            style=resource("page.css"),
            data={f"chart-{index}": chart.data for index, chart in enumerate(self.charts)},
            scripts=scripts,
        )

    def _sections(self) -> list[_Section]:
        """All parts, in their order."""
        notes = {
            title: _Section(f"notes-{index}", title, "list.html", texts)
            for index, (title, texts) in enumerate(self.notes.items())
            if texts
        }
        result = [notes.pop(RESULT)] if RESULT in notes else []
        charts = enumerate(self.charts)
        drawn = [_Section(f"chart-{index}", chart.title, chart.template, chart) for index, chart in charts]
        wide = len(self.tables[0].headings) > _COLUMNS
        tables = [
            _Section(f"table-{index}", table.title, "table.html", table, wide or index > 0)
            for index, table in enumerate(self.tables)
        ]
        above = 1 if not wide and len(self.tables[0].rows) <= _ROWS else 0
        facts = [_Section("facts", "How these numbers were made", "terms.html", self.facts, True)] if self.facts else []
        return [*tables[:above], *result, *drawn, *notes.values(), *tables[above:], *facts]


def _templates() -> Environment:
    """The HTML of this package, in which all text is escaped, also of JSON."""
    templates = Environment(
        loader=FunctionLoader(resource), autoescape=True, undefined=StrictUndefined, keep_trailing_newline=True
    )
    templates.policies["json.dumps_kwargs"] = {"ensure_ascii": False, "allow_nan": False, "separators": (",", ":")}
    return templates


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
