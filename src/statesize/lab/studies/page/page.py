"""A study as one self-contained HTML file: its conclusion, its charts, its figures and its rows."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, cast

from statesize.errors import FileError
from statesize.io.files import read_limited, replace_file, replace_files
from statesize.lab.studies.grid.run import DIVERGED, Row
from statesize.lab.studies.grid.table import MOST_TABLE, parse_rows
from statesize.lab.studies.page.conclusion import CONCLUSION, Conclusion, Saved, figure_text, html_list, read_saved
from statesize.lab.studies.page.rows_table import MOST_ROWS, rows_table, shared_facts
from statesize.report.document import document, filled
from statesize.report.tables import named_texts
from statesize.version import installed

if TYPE_CHECKING:
    import altair as alt

PAGE = "study.html"
TABLE = "table.parquet"
SCRIPTS = ("draw.js", "study.js", "table.js")


def write_page(conclusion: Conclusion, charts: alt.VConcatChart, rows: Sequence[Row], folder: Path) -> None:
    """Writes study.html, and conclusion.json from which it can be made again; a full disk is a FileError."""
    saved = Saved(conclusion, cast("Mapping[str, object]", charts.to_dict()), installed("torch", "numpy"))
    page = render(saved, rows, {"Versions": _listed(saved.versions)})
    replace_files(folder, {PAGE: page.encode(), CONCLUSION: saved.content()})


def write_report(folder: Path, path: Path) -> Path:
    """Writes the page of the study in a folder to `path`; a FileError where that cannot be done."""
    saved, table = read_saved(folder), folder / TABLE
    try:
        content = read_limited(table, MOST_TABLE)
        rows = parse_rows(content)
    except (OSError, ValueError) as error:
        raise FileError(f"{table} cannot be read ({error}). The same `statesize study` command writes it.") from error
    facts = {"Versions": _listed(saved.versions), f"{TABLE}, SHA-256": hashlib.sha256(content).hexdigest()}
    replace_file(path, render(saved, rows, facts).encode())
    return path


def render(saved: Saved, rows: Sequence[Row], facts: Mapping[str, str]) -> str:
    """The page as HTML; `facts` tell how the conclusion and the rows were made."""
    conclusion = saved.conclusion
    title = f"Study: {conclusion.study}"
    replacements = {
        "title": escape(title),
        "verdict": escape(conclusion.verdict),
        "statements": html_list(conclusion.statements),
        "caveats": html_list(conclusion.caveats),
        "figures": _figures(conclusion),
        "table": rows_table(rows),
        "extent": _extent(len(rows)),
        "stopped": _stopped(rows),
        "facts": "".join(
            f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>"
            for name, value in {**facts, **shared_facts(rows)}.items()
        ),
    }
    return document(title, filled("study.html", replacements), {"charts": saved.charts}, SCRIPTS)


def _figures(conclusion: Conclusion) -> str:
    rows = "".join(
        f'<tr><th scope="row">{escape(name)}</th><td class="number">{figure_text(figure)}</td></tr>'
        for name, figure in conclusion.figures.items()
    )
    return f"<table><tbody>{rows}</tbody></table>"


def _extent(count: int) -> str:
    shown = f"{count:,} rows" if count <= MOST_ROWS else f"The first {MOST_ROWS:,} of {count:,} rows"
    return f"{shown}; {TABLE} in the study’s folder holds all. What is the same in all of them is told below."


def _stopped(rows: Sequence[Row]) -> str:
    diverged = {str(row["run"]): row["message"] for row in rows if row.get("status") == DIVERGED}
    return named_texts("Runs that came to no result:", diverged)


def _listed(facts: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {value}" for name, value in facts.items())
