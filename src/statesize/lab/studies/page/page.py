"""A study as one self-contained HTML file: its conclusion, its charts, its figures and its rows."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, cast

from statesize.errors import FileError
from statesize.io.files import read_limited, replace_file, replace_files
from statesize.io.machine import machine
from statesize.lab.studies.grid.run import DIVERGED, Row
from statesize.lab.studies.grid.table import MOST_TABLE, parse_rows
from statesize.lab.studies.page.conclusion import CONCLUSION, Conclusion, Saved, figure_text, html_list, read_saved
from statesize.report.document import document, filled
from statesize.report.tables import heading_cell, named_texts, number_cell
from statesize.version import installed

if TYPE_CHECKING:
    import altair as alt

PAGE = "study.html"
TABLE = "table.parquet"
SCRIPTS = ("draw.js", "study.js", "table.js")
MOST_ROWS = 1000
"""Rows that a page holds; the rest is in the study's folder."""
_LAST = ("seconds", "message", "versions", "run")


def rows_table(rows: Sequence[Row]) -> str:
    """The columns that differ, as HTML; cells of numbers carry them unrounded for sorting and for the CSV."""
    differing = [name for name, texts in _texts(rows).items() if len(set(texts)) > 1]
    names = sorted(differing, key=lambda name: _LAST.index(name) if name in _LAST else -1)
    texts = {name for name in names if any(isinstance(row.get(name), str | bool) for row in rows)}
    head = "".join(heading_cell(name, name.replace("_", " "), name not in texts) for name in names)
    body = "".join(f"<tr>{''.join(_cell(row.get(name)) for name in names)}</tr>" for row in rows[:MOST_ROWS])
    return f'<table id="rows"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'


def shared_facts(rows: Sequence[Row]) -> dict[str, str]:
    """Values that all rows share, as text by the name of the column, without columns of unknown values."""
    shared = {name: texts[0] for name, texts in _texts(rows).items() if len(set(texts)) == 1}
    return {name.replace("_", " "): text for name, text in shared.items() if text not in {"", "–"}}


def _texts(rows: Sequence[Row]) -> dict[str, list[str]]:
    """The cells of each column as text."""
    names = dict.fromkeys(name for row in rows for name in row if name != "settings")
    return {name: [_text(row.get(name)) for row in rows] for name in names}


def _cell(value: object) -> str:
    if isinstance(value, str | bool):
        return f"<td>{escape(_text(value))}</td>"
    return number_cell(_number(value), _text(value))


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str):
        return value
    number = _number(value)
    return "–" if not math.isfinite(number) else f"{number:,.0f}" if number.is_integer() else f"{number:.3g}"


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else math.nan


def write_page(
    conclusion: Conclusion, charts: alt.VConcatChart, rows: Sequence[Row], folder: Path, command: str = ""
) -> None:
    """Writes study.html, and conclusion.json from which it can be made again; a full disk is a FileError."""
    versions = installed("torch", "numpy", "numba", "tokenizers", "transformers")
    saved = Saved(conclusion, cast("Mapping[str, object]", charts.to_dict()), versions, command, machine())
    replace_files(folder, {PAGE: render(saved, rows, {}).encode(), CONCLUSION: saved.content()})


def write_report(folder: Path, path: Path) -> Path:
    """Writes the page of the study in a folder to `path`; a FileError where that cannot be done."""
    saved, table = read_saved(folder), folder / TABLE
    try:
        content = read_limited(table, MOST_TABLE)
        rows = parse_rows(content)
    except (OSError, ValueError) as error:
        raise FileError(f"{table} cannot be read ({error}). The same `statesize study` command writes it.") from error
    facts = {f"{TABLE}, SHA-256": hashlib.sha256(content).hexdigest()}
    replace_file(path, render(saved, rows, facts).encode())
    return path


def render(saved: Saved, rows: Sequence[Row], facts: Mapping[str, str]) -> str:
    """The page as HTML, with `facts` beside the versions and what all rows share."""
    conclusion = saved.conclusion
    title = f"Study: {conclusion.study}"
    versions = ", ".join(f"{name} {version}" for name, version in saved.versions.items())
    made = {"Command": saved.command} if saved.command else {}
    all_facts = {**made, "Versions": versions, "Machine": saved.machine, **facts, **shared_facts(rows)}
    figures = "".join(
        f'<tr><th scope="row">{escape(name)}</th><td class="number">{figure_text(figure)}</td></tr>'
        for name, figure in conclusion.figures.items()
    )
    extent = f"{len(rows):,} rows" if len(rows) <= MOST_ROWS else f"The first {MOST_ROWS:,} of {len(rows):,} rows"
    diverged = {str(row["run"]): row["message"] for row in rows if row.get("status") == DIVERGED}
    replacements = {
        "title": escape(title),
        "verdict": escape(conclusion.verdict),
        "statements": html_list(conclusion.statements),
        "caveats": html_list(conclusion.caveats),
        "figures": f"<table><tbody>{figures}</tbody></table>",
        "table": rows_table(rows),
        "extent": f"{extent}; {TABLE} in the study’s folder holds all. What is the same in all of them is told below.",
        "stopped": named_texts("Runs that came to no result:", diverged),
        "facts": "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in all_facts.items()),
    }
    return document(title, filled("study.html", replacements), {"charts": saved.charts}, SCRIPTS)
