"""A study from its grid to its page: missing runs are done, finished runs stay, and all rows lead to the conclusion."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import Any

from statesize.errors import FileError, StatesizeError
from statesize.io.files import parts_writer, replace_file
from statesize.io.text import counted
from statesize.lab.studies.engine.conclusion import CONCLUSION, RUNS, Conclusion, read_saved
from statesize.lab.studies.engine.page import PAGE, write_page
from statesize.lab.studies.engine.study import Grid, Run, Study
from statesize.lab.studies.engine.table import TABLE, Row, finished_runs, table_content
from statesize.parallel.threads import Crew, Done, Work, here, run

# Names in the folder of a study.
_OWN = rf"{RUNS}|{TABLE}|{CONCLUSION}|{PAGE}"


@dataclass(frozen=True, eq=False)
class StudyResult:
    """A study that is done.

    Attributes:
        conclusion: What it says.
        rows: One a measurement.
        path: table.parquet.
        seconds: Time that this start took; runs of earlier ones are in the rows.
    """

    conclusion: Conclusion
    rows: list[Row]
    path: Path
    seconds: float


def run_study(
    study: Study,
    grid: Grid,
    folder: Path,
    crew: Crew = here,
    on_progress: Callable[[Done[Run, list[Row]], int], None] | None = None,
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
    started, parts = time.perf_counter(), finished_runs(folder, study.name)
    rows, failures = dict[str, list[Row]](), list[Done[Run, list[Row]]]()
    _refuse_another_study(study.name, folder)
    # A run keeps its key, and the files that it depends on may have changed since an earlier start.
    runs = [replace(one) for one in grid.runs]
    with parts_writer(folder, _OWN), crew(partial(_working, study.carry_out)) as executor:
        for done in run(runs, executor, parts, attrgetter("key")):
            if done.error is None:
                rows[done.task.key] = done.get()
            else:
                failures.append(done)
            if on_progress is not None and not done.resumed:
                on_progress(done, len(rows) + len(failures))
        if failures:
            first = failures[0]
            raise StatesizeError(
                f"{len(failures)} of {counted(len(grid.runs), 'run')} failed, the first ({first.task.label}) because "
                f"{first.error}. The others are kept: the same command does only what is missing"
            )
        ordered = [row for one in runs for row in rows[one.key]]
        replace_file(folder / TABLE, table_content(ordered))
        conclusion = study.conclude(ordered, grid.metric, grid.claim)
        write_page(conclusion, study.charts(ordered, grid.metric), ordered, folder, command)
    return StudyResult(conclusion, ordered, folder / TABLE, time.perf_counter() - started)


def stored_rows(study: Study, grid: Grid, folder: Path) -> list[Row]:
    """The rows of the runs of a study's grid that are done, in its order."""
    parts = finished_runs(folder, study.name)
    return [row for one in grid.runs for row in parts.read(one.key) or ()]


def _working(carry_out: Callable[[Any], list[Row]]) -> Work:
    """The work of a process that does runs."""

    def work(one: Any) -> Iterator[list[Row]]:
        yield carry_out(one)

    return work


def _refuse_another_study(name: str, folder: Path) -> None:
    try:
        found = read_saved(folder).conclusion.study
    except FileError:
        return  # none yet, or one that is written anew
    if found != name:
        raise FileError(f"{folder} holds results of the study {found!r}, and this is {name!r}. Give another folder.")
