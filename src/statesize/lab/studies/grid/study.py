"""A study from its settings to its table: missing runs are done, finished runs stay."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from statesize.errors import StatesizeError
from statesize.io.files import only_writer
from statesize.io.steps import Steps
from statesize.io.text import facts_table
from statesize.lab.studies.grid.cost import work
from statesize.lab.studies.grid.grid import TrainingRun
from statesize.lab.studies.grid.run import Row
from statesize.lab.studies.grid.settings import GridSettings
from statesize.lab.studies.grid.table import ResultTable
from statesize.parallel.executor import Done, Executor, run


@dataclass(frozen=True)
class StudyProgress:
    """How far a study is.

    Attributes:
        run: The run that came to its end, with its rows or the error that says why it failed.
        done: Runs that are done, those of earlier starts among them.
        total: Runs of the grid.
        remaining_seconds: How long the rest will take at the speed so far.
    """

    run: Done[TrainingRun, list[Row]]
    done: int
    total: int
    remaining_seconds: float


@dataclass(frozen=True, eq=False)
class StudyResult:
    """A grid that is done.

    Attributes:
        rows: One a measurement.
        path: table.parquet.
        seconds: Time that this start took; runs of earlier ones are in the rows.
    """

    rows: list[Row]
    path: Path
    seconds: float

    def _repr_html_(self) -> str:
        """The size of the study for notebooks; what it says is in `conclude`."""
        facts = {"measurements": len(self.rows), "seconds of this start": f"{self.seconds:.3g}", "table": self.path}
        return facts_table("Study", facts)


def run_study(
    settings: GridSettings,
    folder: Path,
    executor: Executor,
    on_progress: Callable[[StudyProgress], None] | None = None,
) -> StudyResult:
    """Does the runs of a grid that the folder does not hold yet, and writes each when it is done.

    Args:
        settings: The grid.
        folder: Where; missing, empty, or that of the same study.
        executor: Does the runs, such as `local_executor()`.
        on_progress: Called after each run.

    Returns:
        All rows of the grid.

    Raises:
        FileError: The folder is that of another study, cannot be written, or is written by another process.
        StatesizeError: Some runs failed; the others are kept.
    """
    table, started = ResultTable.open(folder, settings.study), time.perf_counter()
    rows, failures = dict[str, list[Row]](), list[Done[TrainingRun, list[Row]]]()
    steps, before = Steps({"runs": sum(map(work, settings.runs))}), started
    with only_writer(folder):
        for done in run(settings.runs, executor, table.parts, lambda one: one.key):
            if done.error is None:
                rows[done.task.key] = done.get()
            else:
                failures.append(done)
            if done.resumed:
                steps.costs["runs"] -= work(done.task)
                continue
            now = time.perf_counter()
            steps.took("runs", now - before, work(done.task))
            before = now
            if on_progress is not None:
                on_progress(StudyProgress(done, len(rows) + len(failures), len(settings.runs), steps.left))
        if failures:
            first = failures[0]
            raise StatesizeError(
                f"{len(failures)} of {len(settings.runs)} runs failed, the first ({first.task.label}) because "
                f"{first.error}. The others are kept: the same command does only what is missing"
            )
        table_rows = [row for one in settings.runs for row in rows[one.key]]
        return StudyResult(table_rows, table.write(table_rows), time.perf_counter() - started)
