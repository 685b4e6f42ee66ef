"""Executors run work on tasks, in this process or in others of this machine, and repeat the tasks of killed workers."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import types
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing import Pipe, get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, Generic, Protocol, Self, TypeAlias, TypeVar, cast

import torch

from statesize.errors import StatesizeError

Task = TypeVar("Task")
Value = TypeVar("Value")

Work: TypeAlias = Callable[[Any], Iterable[Any]]
"""Yields the values of a task, each as soon as it is computed."""

Make: TypeAlias = Callable[[], Work]
"""Makes the work once in each worker, for example by loading a model."""

Answer: TypeAlias = tuple[Any, StatesizeError | None]
"""A value of a task, or the error that ended it."""

ATTEMPTS = 3
"""How often a task is begun if its worker is killed."""

ONE_THREAD = {
    # With small tensors, further threads only cost time.
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    # By default glibc returns large blocks to the system at each free, and every step faults them in again.
    "MALLOC_MMAP_THRESHOLD_": str(2**30),
    "MALLOC_TRIM_THRESHOLD_": str(2**32),
}
"""Environment of workers that compute on one thread."""


@dataclass(frozen=True)
class Done(Generic[Task, Value]):
    """A value of a task, or the error that ended the task."""

    task: Task
    value: Value | None = None
    error: StatesizeError | None = None

    def get(self) -> Value:
        """The value; raises the error if there is one."""
        if self.error is not None:
            raise self.error
        # The work may yield None.
        return self.value  # pyright: ignore[reportReturnType]


class Executor(Protocol):
    """Runs work on tasks: `SerialExecutor` in this process, `Processes` on this machine, or `OnRay` on a cluster.

    A task is begun again if its worker is killed. It ends with a `LostError` when `ATTEMPTS` workers were killed while
    they computed the same value. Each attempt yields the same values in the same order, and each value is returned
    once. An error of the work ends only its own task.
    """

    def run(self, tasks: Iterable[Task]) -> Iterator[Done[Task, Any]]:
        """The values of all tasks as they come; those of one task are in order."""
        ...


class LostError(StatesizeError):
    """`ATTEMPTS` workers in a row were killed, at one task or at their start."""

    def __init__(self, task: str, reason: str) -> None:
        super().__init__(
            f"{ATTEMPTS} workers in a row were lost at {task} ({reason}); is the machines' memory enough, and this "
            "statesize installed on all of them?"
        )


def answers(work: Work, task: object) -> Iterator[Answer]:
    """The values of a task, and last the StatesizeError that ended it, if any."""
    try:
        for value in work(task):
            yield value, None
            # The reference would keep the value in memory while the next one is computed.
            del value
    except StatesizeError as error:
        yield None, error


def sent_answers(work: Work, task: object) -> Iterator[Answer]:
    """`answers` with every error as a StatesizeError, since other processes may lack the class of a user's error."""
    try:
        yield from answers(work, task)
    except Exception as error:
        yield None, StatesizeError(f"{type(error).__name__}: {' '.join(str(error).split())[:300]}")


@contextmanager
def environment(variables: Mapping[str, str]) -> Generator[None]:
    """Set environment variables for the time of a block."""
    previous = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in previous.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@dataclass(frozen=True)
class SerialExecutor:
    """Runs one task after another in this process; raises errors that are no StatesizeError."""

    work: Work

    def run(self, tasks: Iterable[Task]) -> Iterator[Done[Task, Any]]:
        """The values of all tasks, in order."""
        for task in tasks:
            for value, error in answers(self.work, task):
                yield Done(task, value, error)
                del value


@dataclass(eq=False)
class _Job:
    """A task with its counts: workers killed since its last new value, values of this attempt, and values returned."""

    task: Any
    lost: int = 0
    computed: int = 0
    returned: int = 0


class GoneError(Exception):
    """A worker is gone, and why."""


@dataclass(eq=False)
class Workers(ABC):
    """Runs tasks on workers that each hold the work and stay from one run to the next; ends them on exit."""

    # A worker answers each call with a value or an error, or with None: it is ready for a task. A task is sent in its
    # state at the time it is begun: a caller may note in it which values it has stored, and a repeated attempt leaves
    # them out.

    make: Make
    _idle: list[Any] = field(default_factory=list[Any], init=False)
    # The worker and the task of each open call; None for the start of a worker.
    _calls: dict[Any, tuple[Any, _Job | None]] = field(default_factory=dict[Any, "tuple[Any, _Job | None]"], init=False)
    _lost: int = field(default=0, init=False)  # workers in a row that were killed at their start

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        for worker in [*self._idle, *(worker for worker, _ in self._calls.values())]:
            self._kill(worker)

    @abstractmethod
    def _room(self) -> int:
        """How many workers there may be."""

    @abstractmethod
    def _start(self) -> tuple[Any, Any]:
        """A new worker, and the call that it answers when it has made the work."""

    @abstractmethod
    def _ask(self, worker: Any, *task: object) -> Any:
        """The call for the first value of a task, or for the next one of the last."""

    @abstractmethod
    def _first(self, calls: list[Any]) -> Any:
        """The first of some calls that is answered."""

    @abstractmethod
    def _answer(self, call: Any) -> Answer | None:
        """The answer to a call; a GoneError where the worker was killed."""

    @abstractmethod
    def _kill(self, worker: Any) -> None:
        """End a worker."""

    def run(self, tasks: Iterable[Task]) -> Iterator[Done[Task, Any]]:
        """The values of all tasks as they come."""
        waiting = deque(_Job(task) for task in tasks)
        for _ in range(min(len(waiting), self._room()) - len(self._idle) - len(self._calls)):
            self._add_worker()
        while waiting or any(job for _, job in self._calls.values()):
            while waiting and self._idle:
                worker, job = self._idle.pop(), waiting.popleft()
                self._calls[self._ask(worker, job.task)] = worker, job
            call = self._first(list(self._calls))
            worker, job = self._calls.pop(call)
            try:
                answer = self._answer(call)
            except GoneError as error:
                # The worker may only be out of reach.
                self._kill(worker)
                lost = self._lost_error(job, error)
                self._add_worker()
                if job is not None and lost is not None:
                    yield Done(job.task, error=lost)
                elif job is not None:
                    waiting.appendleft(job)
                continue
            if answer is None or job is None:
                if answer is not None and answer[1] is not None:
                    raise answer[1]
                self._idle.append(worker)
                continue
            # Before the yield, so that the worker goes on while the caller handles the value.
            self._calls[self._ask(worker)] = worker, job
            self._lost = 0
            job.computed += 1
            if job.computed > job.returned:
                job.returned, job.lost = job.computed, 0
                yield Done(job.task, *answer)

    def _add_worker(self) -> None:
        worker, call = self._start()
        self._calls[call] = worker, None

    def _lost_error(self, job: _Job | None, error: GoneError) -> LostError | None:
        """The error that ends a job after too many attempts; that of a worker's start is raised."""
        if job is not None:
            job.lost, job.computed = job.lost + 1, 0
            return LostError(str(job.task), str(error)) if job.lost == ATTEMPTS else None
        self._lost += 1
        if self._lost == ATTEMPTS:
            raise LostError("their start", str(error)) from error
        return None


def made(make: Make) -> Answer:
    """The work, or the error that prevents it."""
    return next(sent_answers(lambda _: [make()], None))


@dataclass(eq=False)
class Processes(Workers):
    """Runs tasks in `workers` processes of one thread each."""

    workers: int

    def _room(self) -> int:
        return self.workers

    def _start(self) -> tuple[Any, Any]:
        ours, theirs = Pipe()
        process = get_context("spawn").Process(target=_serve, args=(theirs, self.make), daemon=True)
        with _starting():
            process.start()
        theirs.close()
        return (process, ours), ours

    def _ask(self, worker: Any, *task: object) -> Any:
        for one in task:
            # A worker that is gone is found by its answer.
            with suppress(BrokenPipeError):
                worker[1].send(one)
        return worker[1]

    def _first(self, calls: list[Any]) -> Any:
        return wait(calls)[0]

    def _answer(self, call: Any) -> Answer | None:
        try:
            return call.recv()
        except (EOFError, ConnectionError) as error:
            raise GoneError("its process was killed") from error

    def _kill(self, worker: Any) -> None:
        process, pipe = worker
        process.kill()
        process.join()
        pipe.close()


@contextmanager
def _starting() -> Generator[None]:
    """The state in which a process is started that ignores Ctrl-C and does not run the user's script again."""
    script = sys.modules["__main__"]
    blocked: set[Any] = set()
    # A script without `if __name__ == "__main__"` would begin the work again in each process.
    sys.modules["__main__"] = types.ModuleType("__main__")
    if hasattr(signal, "pthread_sigmask"):
        # Ctrl-C goes to all processes of a terminal; only the one that started the others reacts to it.
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        with environment(ONE_THREAD):
            yield
    finally:
        if hasattr(signal, "pthread_sigmask"):
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        sys.modules["__main__"] = script


def _serve(pipe: Connection, make: Make) -> None:
    """What another process does: make the work, then send the values of each task, and None at its end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    # Libraries may print, and stdout is for the command's own output.
    os.dup2(2, 1)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    work, error = made(make)
    pipe.send((None, error))
    while error is None:
        for value in sent_answers(work, pipe.recv()):
            pipe.send(value)
        pipe.send(None)


def _end_with_parent() -> None:
    cast("BaseProcess", multiprocessing.parent_process()).join()
    os._exit(1)
