"""A study from its grid to its page: missing runs are done, finished runs stay, and all rows lead to the conclusion."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from statesize.errors import FileError, StatesizeError
from statesize.io.files import parts_writer, replace_file, replace_files
from statesize.io.machine import machine
from statesize.io.text import counted
from statesize.lab.studies.engine.charts import draw
from statesize.lab.studies.engine.study import Study
from statesize.lab.studies.engine.table import DIVERGED, RUNS, TABLE, Row, StudyTable, finished_runs, table_content
from statesize.lab.studies.engine.verdicts import Conclusion
from statesize.parallel.threads import Crew, Done, Work, here, run
from statesize.report.result_page import PageChart
from statesize.report.table import PageTable, cell_text
from statesize.version import installed

if TYPE_CHECKING:
    import altair as alt

CONCLUSION, PAGE = "conclusion.json", "study.html"
MOST_ROWS = 1000
"""Rows that a page holds; the table holds all."""


@dataclass(frozen=True, eq=False)
class StudyResult:
    """A study that is done."""

    conclusion: Conclusion
    rows: list[Row]  # one a measurement
    path: Path  # of table.parquet
    seconds: float  # that this start took


def run_study(
    study: Study,
    grid: Any,
    folder: Path,
    crew: Crew = here,
    on_progress: Callable[[Done[Any, list[Row]], int], None] | None = None,
    command: str = "",
) -> StudyResult:
    """Does the runs of a grid that the folder does not hold yet, writes each when it is done, and concludes.

    Args:
        study: The study.
        grid: Its grid, such as `study.preset("smoke")`.
        folder: Where; missing, empty, or that of the same study.
        crew: Who does the runs: this process, or a `statesize.profiling.RayCluster`.
        on_progress: Called after each run, with the number of those that are done.
        command: The command line, for the page.

    Returns:
        The conclusion and all rows.

    Raises:
        FileError: The folder is that of another study, cannot be written, or is written by another process.
        StatesizeError: Some runs failed; the others are kept.
    """
    started, parts, runs = time.perf_counter(), finished_runs(folder, study.kind), study.runs(grid)
    if others := [path.name for path in (folder / RUNS).glob("*") if path.name != study.kind]:
        raise FileError(
            f"folder must be that of {study.kind}, got {folder} with runs of {others[0]}. Give another one."
        )
    finished = list[Done[Any, list[Row]]]()
    with parts_writer(folder, rf"{RUNS}|{TABLE}|{CONCLUSION}|{PAGE}"), crew(partial(_working, study)) as executor:
        for done in run(runs, executor, parts, attrgetter("key")):
            finished.append(done)
            if on_progress is not None and not done.resumed:
                on_progress(done, len(finished))
        if failures := [done for done in finished if done.error is not None]:
            raise StatesizeError(
                f"{len(failures)} of {counted(len(runs), 'run')} failed, the first ({failures[0].task.label}) because "
                f"{failures[0].error}. The others are kept: the same command does only what is missing"
            )
        rows = stored_rows(study, runs, folder)
        replace_file(folder / TABLE, table_content(rows))
        conclusion = study.conclude(rows, grid.claim or study.claim)
        write_page(conclusion, draw(study, StudyTable(rows)), rows, folder, command)
    return StudyResult(conclusion, rows, folder / TABLE, time.perf_counter() - started)


def stored_rows(study: Study, runs: Sequence[Any], folder: Path) -> list[Row]:
    """The rows of those runs of a study that are done, in their order."""
    parts = finished_runs(folder, study.kind)
    return [row for run in runs for row in parts.read(run.key) or ()]


def _working(study: Study) -> Work:
    """The work of a process that does runs."""
    return lambda task: iter([study.carry_out(task)])


def write_page(
    conclusion: Conclusion, charts: alt.VConcatChart, rows: Sequence[Row], folder: Path, command: str
) -> None:
    """Writes study.html and conclusion.json; a full disk is a FileError."""
    versions = installed("torch", "numpy", "numba", "tokenizers", "transformers")
    made = {"command": command, "versions": versions, "machine": machine()}
    table, shared = told_apart(rows)
    software = ", ".join(f"{name} {version}" for name, version in versions.items())
    diverged = [f"{row['run']}: {row['message']}" for row in rows if row.get("status") == DIVERGED]
    page = conclusion.page()
    page = replace(
        page,
        charts=[PageChart("Charts", charts.to_dict())],
        tables=[*page.tables, table],
        notes={**page.notes, "Runs that came to no result": diverged},
        facts={"Command": command, "Versions": software, "Machine": made["machine"], **shared},
    )
    document = json.dumps({**conclusion.to_dict(), **made}, ensure_ascii=False, allow_nan=False)
    replace_files(folder, {PAGE: page.render().encode(), CONCLUSION: document.encode() + b"\n"})


def told_apart(rows: Sequence[Row]) -> tuple[PageTable, dict[str, str]]:
    """The first rows in the columns that differ, and what is the same in all of them, as facts."""
    names = dict.fromkeys(name for row in rows for name in row if name != "settings")
    texts = {name: {cell_text(row.get(name)) for row in rows} for name in names}
    differing = [name for name, cells in texts.items() if len(cells) > 1]
    shared = {name.replace("_", " "): text for name, (text, *more) in texts.items() if not more and text.strip("–")}
    caption = f"At most {MOST_ROWS:,} rows; {TABLE} holds all {len(rows):,}. What is the same in them is told below."
    table = PageTable("Rows", differing, [[row.get(name) for name in differing] for row in rows[:MOST_ROWS]], caption)
    return table, shared
