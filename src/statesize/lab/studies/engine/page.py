"""A study as one self-contained HTML file: its conclusion, its charts, its figures and its rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

from statesize.io.files import replace_files
from statesize.io.machine import machine
from statesize.io.text import counted
from statesize.lab.studies.engine.conclusion import CONCLUSION, Conclusion, Saved, figure_text
from statesize.lab.studies.engine.table import DIVERGED, TABLE, Row
from statesize.report.result_page import RESULT, PageChart, PageTable, ResultPage, told_apart
from statesize.version import installed

if TYPE_CHECKING:
    import altair as alt

PAGE = "study.html"
MOST_ROWS = 1000
"""Rows that a page holds; the rest is in the study's folder."""


def write_page(
    conclusion: Conclusion, charts: alt.VConcatChart, rows: Sequence[Row], folder: Path, command: str = ""
) -> None:
    """Writes study.html and conclusion.json; a full disk is a FileError."""
    versions = installed("torch", "numpy", "numba", "tokenizers", "transformers")
    saved = Saved(conclusion, versions, command, machine())
    drawn = page(saved, cast("Mapping[str, object]", charts.to_dict()), rows)
    replace_files(folder, {PAGE: drawn.render().encode(), CONCLUSION: saved.content()})


def page(saved: Saved, charts: Mapping[str, object], rows: Sequence[Row]) -> ResultPage:
    """The page, with charts in Vega-Lite."""
    conclusion = saved.conclusion
    extent = (
        f"{counted(len(rows), 'row')}"
        if len(rows) <= MOST_ROWS
        else f"The first {MOST_ROWS:,} of {counted(len(rows), 'row')}"
    )
    caption = f"{extent}; {TABLE} in the study’s folder holds all. What is the same in all of them is told below."
    table, shared = told_apart(rows, "Rows", caption, MOST_ROWS)
    figures = [(name, figure_text(figure)) for name, figure in conclusion.figures.items()]
    numbers = (
        "Numbers of the conclusion; two numbers are the ends of an interval of 95 %, and controls begin with control_."
    )
    versions = ", ".join(f"{name} {version}" for name, version in saved.versions.items())
    made = {"Command": saved.command} if saved.command else {}
    return ResultPage(
        title=f"Study: {conclusion.study}",
        finding=conclusion.verdict,
        charts=[PageChart("Charts", charts)],
        tables=[PageTable("Figures", ("figure", "value"), figures, numbers), table],
        notes={
            RESULT: conclusion.statements,
            "Caveats": conclusion.caveats,
            "Runs that came to no result": [
                f"{row['run']}: {row['message']}" for row in rows if row.get("status") == DIVERGED
            ],
        },
        facts={**made, "Versions": versions, "Machine": saved.machine, **shared},
    )
