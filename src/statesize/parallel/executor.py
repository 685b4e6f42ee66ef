"""What runs work: tasks go in, outcomes come out as they are there, and what a killed worker was at is done again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeAlias, TypeVar

from statesize.errors import StatesizeError

Task = TypeVar("Task")
Value = TypeVar("Value")

Work: TypeAlias = Callable[[Any], Iterable[Any]]
"""Yields what a task gives, one value or several, each as soon as it is there."""

Make: TypeAlias = Callable[[], Work]
"""Makes the work, once in each worker, such as by loading a model."""

ATTEMPTS = 3
"""How often a task is begun whose worker is killed."""

ONE_THREAD = {
    # More threads slow small tensors down, and wait in loops.
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    # glibc gives larger blocks back to the system at each free by default, and every step faults them in again.
    "MALLOC_MMAP_THRESHOLD_": str(2**30),
    "MALLOC_TRIM_THRESHOLD_": str(2**32),
}
"""Environment of workers that compute on one thread."""


@dataclass(frozen=True)
class Done(Generic[Task, Value]):
    """A value of a task, or the error that ended the task.

    Attributes:
        task: The task.
        value: What the work yielded; None beside an error.
        error: Why the task ended early.
    """

    task: Task
    value: Value | None = None
    error: StatesizeError | None = None

    def get(self) -> Value:
        """The value; an error is raised."""
        if self.error is not None:
            raise self.error
        # The work may yield None.
        return self.value  # pyright: ignore[reportReturnType]


class Executor(Protocol):
    """Runs work on tasks: in this process (`here`), in processes of this machine (`processes`), or on Ray (`ray`).

    A task whose worker is killed is begun again, and ends with a `LostError` once `ATTEMPTS` workers were killed at the
    same of its values. Each value comes once: an attempt yields the same ones in the same order, and those that came
    before are left out. Errors of the work end their task alone. Whoever stops to iterate ends the workers.
    """

    def run(self, tasks: Iterable[Task]) -> Iterator[Done[Task, Any]]:
        """The values of all tasks as they come; those of one task are in order."""
        ...


class LostError(StatesizeError):
    """Workers were killed at one task, or while they began, as often as it is tried."""

    def __init__(self, at: str, reason: str) -> None:
        super().__init__(
            f"{ATTEMPTS} workers in a row were lost at {at} ({reason}); is the machines' memory enough, and this "
            "statesize installed on all of them?"
        )


def answers(work: Work, task: object) -> Iterator[tuple[Any, StatesizeError | None]]:
    """The values of a task, then perhaps the error that ended it."""
    try:
        for value in work(task):
            yield value, None
            # It would keep a record alive while the next one is made.
            del value
    except StatesizeError as error:
        yield None, error


def sent_answers(work: Work, task: object) -> Iterator[tuple[Any, StatesizeError | None]]:
    """The same with errors of all kinds as ours, because code of the user raises some that other processes lack."""
    try:
        yield from answers(work, task)
    except Exception as error:
        yield None, StatesizeError(one_line(error))


def one_line(error: BaseException) -> str:
    """The kind of an error and what it says, in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


@dataclass(frozen=True)
class SerialExecutor:
    """One task after another, each taken when the one before is done; errors that are not ours are raised as they are.

    Attributes:
        work: What is done.
    """

    work: Work

    def run(self, tasks: Iterable[Task]) -> Iterator[Done[Task, Any]]:
        """The values of all tasks, in order."""
        for task in tasks:
            for value, error in answers(self.work, task):
                yield Done(task, value, error)
                del value
