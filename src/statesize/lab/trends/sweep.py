"""The points of a trend, measured by whoever in any order, and kept in a folder so that a killed run goes on."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from statesize.errors import FileError, StatesizeError
from statesize.io.files import LOCK, Parts, only_writer
from statesize.lab.trends.trend import SweepPoint
from statesize.parallel.executor import Executor

Task = TypeVar("Task")
_SUFFIX = ".point"


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


@dataclass(frozen=True)
class SweepRun(Generic[Task]):
    """What is measured of each task: where it is stored, and who is notified.

    Attributes:
        key: Makes a digest of all that a task's numbers depend on; called again once it is measured, when more may be
            known of it.
    """

    title: Callable[[Task], str]
    key: Callable[[Task], str]
    parts: Parts | None
    on_progress: Callable[[SweepProgress], None] | None

    def points(self, tasks: Sequence[Task], executor: Executor) -> tuple[dict[Task, SweepPoint], dict[str, str]]:
        """The points of tasks, in their order, and by title why others could not be measured."""
        finished: dict[Task, SweepPoint] = {}
        failed: dict[Task, str] = {}

        def tell(task: Task, *, resumed: bool = False) -> None:
            if self.on_progress is not None:
                done, error = len(finished) + len(failed), failed.get(task, "")
                self.on_progress(SweepProgress(done, len(tasks), self.title(task), resumed, error))

        for task in tasks:
            stored = None if self.parts is None else self.parts.read(self.key(task), SweepPoint.from_bytes)
            if stored is not None:
                finished[task] = stored
                tell(task, resumed=True)
        for done in executor.run([task for task in tasks if task not in finished]):
            try:
                finished[done.task] = done.get()
            except StatesizeError as error:
                failed[done.task] = str(error)
            else:
                if self.parts is not None:
                    self.parts.write(self.key(done.task), finished[done.task].to_bytes())
            tell(done.task)
        if not finished:
            reasons = "; ".join(f"{self.title(task)}: {reason}" for task, reason in failed.items())
            raise StatesizeError(f"Nothing could be measured: {reasons}")
        problems = {self.title(task): failed[task] for task in tasks if task in failed}
        return {task: finished[task] for task in tasks if task in finished}, problems


@contextmanager
def open_points(folder: Path | None) -> Generator[Parts | None]:
    """The points that are kept in a folder, which other processes are kept from; None without a folder."""
    if folder is not None and folder.exists():
        strange = not folder.is_dir() or any(
            path.suffix != _SUFFIX and path.name != LOCK and not path.name.startswith(".") for path in folder.iterdir()
        )
        if strange:
            raise FileError(f"{folder} must be a new folder or hold the points of a trend, got something else.")
    with nullcontext() if folder is None else only_writer(folder):
        yield None if folder is None else Parts(folder, _SUFFIX)
