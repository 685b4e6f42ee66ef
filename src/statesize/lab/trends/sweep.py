"""The points of a trend, measured by any worker, in any order, and kept in a folder so that a killed run goes on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from statesize.errors import StatesizeError
from statesize.io.files import Parts, parts_writer
from statesize.lab.trends.trend import SweepPoint
from statesize.parallel.executor import Crew, Make, run

Task = TypeVar("Task")


@dataclass(frozen=True)
class SweepProgress:
    """How far a sweep is, after each point.

    Attributes:
        done: How many points are done.
        total: How many there are.
        name: The checkpoint or length.
        resumed: Whether an earlier run had measured it.
        error: Why it could not be measured; empty where it was.
    """

    done: int
    total: int
    name: str
    resumed: bool = False
    error: str = ""


def sweep(
    tasks: Sequence[Task],
    make: Make,
    crew: Crew,
    *,
    title: Callable[[Task], str],
    key: Callable[[Task], str],
    folder: Path | None,
    on_progress: Callable[[SweepProgress], None],
) -> tuple[dict[Task, SweepPoint], dict[str, str]]:
    """The points of tasks, in their order, and by title why others could not be measured."""
    # The key is asked for again once a task is measured, when more may be known of it.
    finished, failed = dict[Task, SweepPoint](), dict[Task, str]()
    parts = Parts(folder, ".point", SweepPoint.to_bytes, SweepPoint.from_bytes)
    with parts_writer(folder, r"\..*|.*\.point"), crew(make) as executor:
        for done in run(tasks, executor, parts, key):
            if done.error is None:
                finished[done.task] = done.get()
            else:
                failed[done.task] = str(done.error)
            count, error = len(finished) + len(failed), failed.get(done.task, "")
            on_progress(SweepProgress(count, len(tasks), title(done.task), done.resumed, error))
    if not finished:
        reasons = "; ".join(f"{title(task)}: {reason}" for task, reason in failed.items())
        raise StatesizeError(f"Nothing could be measured: {reasons}")
    problems = {title(task): failed[task] for task in tasks if task in failed}
    return {task: finished[task] for task in tasks if task in finished}, problems
