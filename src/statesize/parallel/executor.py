"""An executor runs work on tasks: in this process, or on the processes of a Ray cluster (`ray.py`)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeAlias, TypeVar

from statesize.errors import StatesizeError
from statesize.io.files import Parts

Task = TypeVar("Task")
Value = TypeVar("Value")

Work: TypeAlias = Callable[[Any], Iterable[Any]]
"""Yields the values of a task, each as soon as it is computed."""

Make: TypeAlias = Callable[[], Work]
"""Makes the work once in each process, for example by loading a model."""


@dataclass(frozen=True)
class Done(Generic[Task, Value]):
    """A value of a task, or the error that ended the task.

    Attributes:
        task: The task.
        value: The value; None where there is an error.
        error: The error; None where there is a value.
        resumed: Whether an earlier run had computed it.
    """

    task: Task
    value: Value | None = None
    error: StatesizeError | None = None
    resumed: bool = False

    def get(self) -> Value:
        """The value; raises the error if there is one."""
        if self.error is not None:
            raise self.error
        # The work may yield None.
        return self.value  # pyright: ignore[reportReturnType]


class Executor(Protocol):
    """Runs work on tasks: `SerialExecutor` in this process, or `OnRay` on a cluster.

    Each value is returned once, and those of one task are in order. An error of the work ends only its own task.
    """

    def run(self, tasks: Iterable[Task]) -> Iterator[Done[Task, Any]]:
        """The values of all tasks as they come."""
        ...


Crew: TypeAlias = Callable[[Make], AbstractContextManager[Executor]]
"""Makes the executor of a work for the time of a block: `here`, or a `RayCluster`."""


@dataclass(frozen=True)
class SerialExecutor:
    """Runs one task after another in this process; raises errors that are no StatesizeError."""

    work: Work

    def run(self, tasks: Iterable[Task]) -> Iterator[Done[Task, Any]]:
        """The values of all tasks, in order."""
        for task in tasks:
            try:
                for value in self.work(task):
                    yield Done(task, value)
                    # The reference would keep the value in memory while the next one is computed.
                    del value
            except StatesizeError as error:
                yield Done(task, error=error)


def here(make: Make) -> AbstractContextManager[Executor]:
    """The crew of this process."""
    return nullcontext(SerialExecutor(make()))


def run(
    tasks: Sequence[Task], executor: Executor, parts: Parts[Value], name: Callable[[Task], str]
) -> Iterator[Done[Task, Value]]:
    """The values of tasks: first those that are stored under the tasks' names, then the others, stored as they come."""
    missing = list[Task]()
    for task in tasks:
        if (value := parts.read(name(task))) is None:
            missing.append(task)
        else:
            yield Done(task, value, resumed=True)
    # Without a task, no worker is started.
    for done in executor.run(missing) if missing else ():
        if done.error is None:
            parts.write(name(done.task), done.get())
        yield done
