"""The page of a trend: one self-contained HTML file with its finding, its charts and a row a layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from statesize.io.files import replace_file
from statesize.lab.studies.page.page import rows_table, shared_facts
from statesize.measurement.chart import Chart, Row
from statesize.measurement.vega import vega_chart
from statesize.report import check_report_path
from statesize.report.document import document, filled
from statesize.report.tables import named_texts

_SCRIPTS = ("draw.js", "trend.js", "table.js")


@dataclass(frozen=True)
class Page:
    """What a page of a trend says."""

    title: str
    finding: str
    question: str
    lead: str
    charts: Sequence[Chart]
    about: str  # of the table
    rows: Sequence[Row]
    skipped: Mapping[str, str]
    facts: Mapping[str, str]


def write_page(page: Page, path: Path) -> Path:
    """Write the page; a path that cannot be written is a FileError."""
    check_report_path(path)
    figures = "".join(
        f'<figure><figcaption>{escape(chart.title)}</figcaption><div class="chart" id="chart-{index}" role="group" '
        f'aria-label="{escape(chart.title, quote=True)}"></div></figure>'
        for index, chart in enumerate(page.charts)
    )
    facts = {**page.facts, **shared_facts(page.rows)}
    parts = {
        **{name: escape(getattr(page, name)) for name in ("title", "finding", "question", "lead", "about")},
        "charts": figures,
        "table": rows_table(page.rows),
        "skipped": named_texts("Not measured:", page.skipped),
        "facts": "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in facts.items()),
    }
    # The caption is the title already.
    charts = [{**vega_chart(chart, page=True).to_dict(), "title": ""} for chart in page.charts]
    content = document(page.title, filled("trend.html", parts), {"charts": charts}, _SCRIPTS)
    replace_file(path, content.encode())
    return path
