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
from statesize.lab.studies.grid.run import DIVERGED, Row
from statesize.lab.studies.grid.table import MOST_TABLE, parse_rows
from statesize.lab.studies.page.conclusion import CONCLUSION, Conclusion, Saved, figure_text, html_list, read_saved
from statesize.report.document import document, filled
from statesize.report.tables import heading_cell, named_texts, number_cell
from statesize.version import installed

if TYPE_CHECKING:
    import altair as alt


MOST_ROWS = 1000
"""Rows that a page holds; the rest is in the study's folder."""
_LEFT_OUT = ("settings",)
_LAST = ("seconds", "message", "versions", "run")


def rows_table(rows: Sequence[Row]) -> str:
    """The columns that differ, as HTML; cells of numbers carry them unrounded for sorting and for the CSV."""
    names = _columns(rows)
    texts = {name for name in names if any(isinstance(row.get(name), str | bool) for row in rows)}
    head = "".join(heading_cell(name, _title(name), name not in texts) for name in names)
    body = "".join(f"<tr>{''.join(_cell(row.get(name)) for name in names)}</tr>" for row in rows[:MOST_ROWS])
    return f'<table id="rows"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'


def shared_facts(rows: Sequence[Row]) -> dict[str, str]:
    """What is the same in all rows, as text by the name of the column; columns without a known value are left out."""
    shared = {name: values[0] for name, values in _values(rows).items() if not _differs(values)}
    return {_title(name): _text(value) for name, value in shared.items() if _text(value) not in {"", "–"}}


def _columns(rows: Sequence[Row]) -> list[str]:
    differing = [name for name, values in _values(rows).items() if _differs(values)]
    return sorted(differing, key=lambda name: _LAST.index(name) if name in _LAST else -1)


def _values(rows: Sequence[Row]) -> Mapping[str, list[object]]:
    names = dict.fromkeys(name for row in rows for name in row if name not in _LEFT_OUT)
    return {name: [row.get(name) for row in rows] for name in names}


def _differs(values: Sequence[object]) -> bool:
    return len(set(map(_text, values))) > 1


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


def _title(name: str) -> str:
    return name.replace("_", " ")


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
