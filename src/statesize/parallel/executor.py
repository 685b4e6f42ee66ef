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
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, Generic, Protocol, Self, TypeAlias, TypeVar, cast

import torch

from statesize.errors import StatesizeError
from statesize.io.files import Parts

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
    """Runs work on tasks: `SerialExecutor` in this process, `Processes` on this machine, or `OnRay` on a cluster.

    A task is begun again if its worker is killed. It ends with a `LostError` when `ATTEMPTS` workers were killed while
    they computed the same value. Each attempt yields the same values in the same order, and each value is returned
    once. An error of the work ends only its own task.
    """

    def run(self, tasks: Iterable[Task]) -> Iterator[Done[Task, Any]]:
        """The values of all tasks as they come; those of one task are in order."""
        ...


Crew: TypeAlias = Callable[[Make], AbstractContextManager[Executor]]
"""Makes the executor of a work for the time of a block."""


class LostError(StatesizeError):
    """`ATTEMPTS` workers in a row were killed, at one task or at their start."""

    def __init__(self, task: str, reason: str) -> None:
        super().__init__(
            f"{ATTEMPTS} workers in a row were lost at {task} ({reason}); is the machines' memory enough, and this "
            "statesize installed on all of them?"
        )


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


def answers(work: Work, task: object, *, all_errors: bool = False) -> Iterator[Answer]:
    """The values of a task, and last the StatesizeError that ended it, if any; with `all_errors` any error as one."""
    try:
        for value in work(task):
            yield value, None
            # The reference would keep the value in memory while the next one is computed.
            del value
    except StatesizeError as error:
        yield None, error
    except Exception as error:
        if not all_errors:
            raise
        # Other processes may lack the class of a user's error.
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


def here(make: Make) -> AbstractContextManager[Executor]:
    """The crew of this process."""
    return nullcontext(SerialExecutor(make()))


def given(value: Value) -> Value:
    """The value itself; a `partial` of this function gives workers what was made before."""
    return value


class Worker:
    """Another process that makes the work, then computes one value after another."""

    def __init__(self, make: Make, threads: int) -> None:
        # The first `next` makes it: Ray would replace the class of an error that is raised here.
        self._answers = answers(self._open, (make, threads), all_errors=True)

    def _open(self, settings: tuple[Make, int]) -> Iterator[Any]:
        make, threads = settings
        torch.set_num_threads(threads)
        self._work = make()
        yield from ()

    def next(self, *task: object) -> Answer | None:
        """The first value of a task, or the next value or error of the last; None at its end."""
        if task:
            self._answers = answers(self._work, *task, all_errors=True)
        return next(self._answers, None)


@dataclass(eq=False)
class _Job:
    """A task, or the start of workers, which has no values.

    Attributes:
        lost: Workers killed since its last new value.
        returned: Values returned.
        repeated: Values still to come of this attempt that were returned before.
    """

    task: Any
    lost: int = 0
    returned: int = 0
    repeated: int = 0


class GoneError(Exception):
    """A worker is gone, and why."""


@dataclass(eq=False)
class Workers(ABC):
    """Runs tasks on workers that each hold the work and stay from one run to the next; ends them on exit."""

    # A worker answers as `Worker` does. A task is sent in its state at the time it is begun: a caller may note in it
    # which values it has stored, and a repeated attempt leaves them out.

    make: Make
    _idle: list[Any] = field(default_factory=list[Any], init=False)
    _calls: dict[Any, tuple[Any, _Job]] = field(default_factory=dict[Any, tuple[Any, _Job]], init=False)
    _start_job: _Job = field(default_factory=lambda: _Job("their start"), init=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        for worker in [*self._idle, *(worker for worker, _ in self._calls.values())]:
            self._kill(worker)

    @abstractmethod
    def _room(self) -> int:
        """How many workers there may be."""

    @abstractmethod
    def _start(self) -> Any:
        """A new worker."""

    @abstractmethod
    def _ask(self, worker: Any, *task: object) -> Any:
        """The call of its `next`."""

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
        waiting, room = deque(_Job(task) for task in tasks), self._room()
        while left := len(waiting) + sum(job is not self._start_job for _, job in self._calls.values()):
            for _ in range(min(left, room) - len(self._idle) - len(self._calls)):
                worker = self._start()
                self._calls[self._ask(worker)] = worker, self._start_job
            while waiting and self._idle:
                worker, job = self._idle.pop(), waiting.popleft()
                self._calls[self._ask(worker, job.task)] = worker, job
            call = self._first(list(self._calls))
            worker, job = self._calls.pop(call)
            try:
                answer = self._answer(call)
            except GoneError as gone:
                # The worker may only be out of reach.
                self._kill(worker)
                job.lost, job.repeated = job.lost + 1, job.returned
                error = LostError(str(job.task), str(gone)) if job.lost == ATTEMPTS else None
                if job is self._start_job:
                    if error is not None:
                        raise error from gone
                elif error is not None:
                    yield Done(job.task, error=error)
                else:
                    waiting.appendleft(job)
                continue
            if answer is None or job is self._start_job:
                self._idle.append(worker)
                self._start_job.lost = 0
                if answer is not None and answer[1] is not None:
                    raise answer[1]
                continue
            # Before the yield, so that the worker goes on while the caller handles the value.
            self._calls[self._ask(worker)] = worker, job
            if job.repeated:
                job.repeated -= 1
            else:
                job.returned, job.lost = job.returned + 1, 0
                yield Done(job.task, *answer)


@dataclass(eq=False)
class Processes(Workers):
    """Runs tasks in `workers` processes of one thread each."""

    workers: int

    def _room(self) -> int:
        return self.workers

    def _start(self) -> Any:
        ours, theirs = multiprocessing.Pipe()
        process = multiprocessing.get_context("spawn").Process(target=_serve, args=(theirs, self.make), daemon=True)
        with _starting():
            process.start()
        theirs.close()
        return process, ours

    def _ask(self, worker: Any, *task: object) -> Any:
        # A worker that is gone is found by its answer.
        with suppress(BrokenPipeError):
            worker[1].send(task)
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
    """The life of another process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Libraries may print, and stdout is for the command's own output.
    os.dup2(2, 1)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    worker = Worker(make, 1)
    while True:
        pipe.send(worker.next(*pipe.recv()))


def _end_with_parent() -> None:
    cast("BaseProcess", multiprocessing.parent_process()).join()
    os._exit(1)
