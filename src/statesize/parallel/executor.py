"""What runs work: tasks go in, outcomes come out as they are there, and what a killed worker was at is done again."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import types
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.context import SpawnContext, SpawnProcess
from typing import Any, Generic, Protocol, TypeAlias, TypeVar, cast

import torch

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


Answer = list[tuple[Any, StatesizeError | None]]


@dataclass(frozen=True)
class Processes:
    """So many processes of one thread each; a killed one is replaced, and its task is begun again."""

    # The values of a task come when it is done. Each process is a pool of its own, so that the others go on when one is
    # killed, and so that it is known which task it was at.

    make: Make  # makes the work in each process
    workers: int  # number of processes

    def run(self, tasks: Iterable[Task]) -> Iterator[Done[Task, Any]]:
        """The values of all tasks as they come."""
        waiting = deque((task, 1) for task in tasks)
        free = [_Worker(self.make) for _ in range(min(self.workers, len(waiting)))]
        everyone, running = list(free), dict[Future[Answer], tuple[_Worker, Task, int]]()

        def begin() -> None:
            while free and waiting:
                worker, (task, attempt) = free.pop(), waiting.popleft()
                running[worker.begin(task)] = worker, task, attempt

        try:
            begin()
            while running:
                finished, _ = wait(running, return_when=FIRST_COMPLETED)
                found: list[Done[Task, Any]] = []
                for future in finished:
                    worker, task, attempt = running.pop(future)
                    free.append(worker)
                    try:
                        found += [Done(task, value, error) for value, error in future.result()]
                    except BrokenProcessPool:
                        worker.end()
                        if attempt < ATTEMPTS:
                            waiting.appendleft((task, attempt + 1))
                        else:
                            found.append(Done(task, error=LostError(str(task), "its process was killed")))
                # Before what is found is handed on, which takes its time.
                begin()
                yield from found
        finally:
            for worker in everyone:
                worker.end()


class _Worker:
    """A pool of one process, started anew after its end."""

    def __init__(self, make: Make) -> None:
        self._make = make
        self._context = _Context()
        self._pool: ProcessPoolExecutor | None = None

    def begin(self, task: object) -> Future[Answer]:
        """Hand over a task."""
        if self._pool is None:
            self._pool = ProcessPoolExecutor(1, self._context, _begin, (self._make,))
        return self._pool.submit(_answer, task)

    def end(self) -> None:
        """Kill the process, whatever it is doing."""
        for process in self._context.started:
            # None where the system could not start it.
            if process.pid is not None:
                process.kill()
        self._context.started.clear()
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None


class _Context(SpawnContext):
    """Starts new Pythons, and knows them."""

    def __init__(self) -> None:
        super().__init__()
        self.started: list[SpawnProcess] = []

    def Process(self, *args: Any, **kwargs: Any) -> SpawnProcess:  # pyright: ignore[reportIncompatibleVariableOverride]
        process = _Process(*args, **kwargs)
        self.started.append(process)
        return process


class _Process(SpawnProcess):
    """A new Python with the environment of one thread, deaf to Ctrl-C, that does not run the user's script again."""

    def start(self) -> None:
        with _starting():
            super().start()


@contextmanager
def _starting() -> Generator[None]:
    before = {name: os.environ.get(name) for name in ONE_THREAD}
    script = sys.modules["__main__"]
    blocked: set[Any] = set()
    # A script without `if __name__ == "__main__"` would begin the work again in each process.
    sys.modules["__main__"] = types.ModuleType("__main__")
    os.environ.update(ONE_THREAD)
    if hasattr(signal, "pthread_sigmask"):
        # Ctrl-C goes to all processes of a terminal; the one that started the others decides what it means.
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        if hasattr(signal, "pthread_sigmask"):
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
        sys.modules["__main__"] = script


_here: dict[str, Any] = {}
"""In a worker: what makes the work, and the work once it is made."""


def _begin(make: Make) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    # What libraries print is not what the command prints.
    os.dup2(2, 1)
    _here["make"] = make
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _answer(task: object) -> Answer:
    return list(sent_answers(_work, task))


def _work(task: object) -> Iterable[Any]:
    # Not while the process begins, where an error would break the pool.
    if "work" not in _here:
        _here["work"] = _here["make"]()
    return cast("Work", _here["work"])(task)
