"""Executors run work on tasks, in this process or in others of this machine, and repeat the tasks of killed workers."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import types
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.context import SpawnContext, SpawnProcess
from multiprocessing.process import BaseProcess
from typing import Any, Generic, Protocol, TypeAlias, TypeVar, cast

import torch

from statesize.check import require_count
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
    once. An error of the work ends only its own task. Closing the iterator ends the workers.
    """

    def run(self, tasks: Iterable[Task]) -> Iterator[Done[Task, Any]]:
        """The values of all tasks as they come; those of one task are in order."""
        ...


@dataclass(frozen=True)
class RayCluster:
    """Processes of a Ray cluster that each hold the model and measure one sequence after another.

    All machines need this version of statesize, and the same of torch and numpy.

    Attributes:
        address: HOST:PORT or ray://HOST:PORT of a cluster, or "auto" for the one that runs on this machine. None takes
            the one that this process is connected to, or starts one on this machine and stops it at the end.
        cpus: Cores of each process, and its threads. There are as many processes as sequences, cores and memory allow.
        gpus: GPUs of each process, or a share of one; a model on a GPU needs some.

    Raises:
        InputError: If `cpus` is no positive number.
    """

    address: str | None = None
    cpus: int = 1
    gpus: float = 0.0

    def __post_init__(self) -> None:
        require_count("cpus", self.cpus)


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
        yield None, StatesizeError(one_line(error))


def one_line(error: BaseException) -> str:
    """Class and message of an error in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


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


@dataclass(frozen=True)
class Processes:
    """Runs tasks in `workers` processes of one thread each; the values of a task come together, at its end."""

    # Each process is a pool of its own: a killed process breaks all of its pool, and a pool does not report which task
    # that process had.

    make: Make
    workers: int

    def run(self, tasks: Iterable[Task]) -> Iterator[Done[Task, Any]]:
        """The values of all tasks as they come."""
        waiting = deque((task, 1) for task in tasks)
        workers = [_Worker(self.make) for _ in range(min(self.workers, len(waiting)))]
        free, running = list(workers), dict[Future[list[Answer]], tuple[_Worker, Task, int]]()

        def begin() -> None:
            while free and waiting:
                worker, (task, attempt) = free.pop(), waiting.popleft()
                running[worker.begin(task)] = worker, task, attempt

        try:
            begin()
            while running:
                finished, _ = wait(running, return_when=FIRST_COMPLETED)
                results: list[Done[Task, Any]] = []
                for future in finished:
                    worker, task, attempt = running.pop(future)
                    free.append(worker)
                    try:
                        results += [Done(task, value, error) for value, error in future.result()]
                    except BrokenProcessPool:
                        worker.end()
                        if attempt < ATTEMPTS:
                            waiting.appendleft((task, attempt + 1))
                        else:
                            results.append(Done(task, error=LostError(str(task), "its process was killed")))
                # Workers go on while the caller handles the results.
                begin()
                yield from results
        finally:
            for worker in workers:
                worker.end()


class _Worker:
    """A pool of one process; `begin` starts the process, also after `end`."""

    def __init__(self, make: Make) -> None:
        self._make = make
        self._context = _Context()
        self._pool: ProcessPoolExecutor | None = None

    def begin(self, task: object) -> Future[list[Answer]]:
        """Submit a task."""
        if self._pool is None:
            self._pool = ProcessPoolExecutor(1, self._context, _initialise, (self._make,))
        return self._pool.submit(_all_answers, task)

    def end(self) -> None:
        """Kill the process."""
        for process in self._context.started:
            # None if the system could not start it.
            if process.pid is not None:
                process.kill()
        self._context.started.clear()
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None


class _Context(SpawnContext):
    """Starts processes and records them."""

    def __init__(self) -> None:
        super().__init__()
        self.started: list[SpawnProcess] = []

    def Process(self, *args: Any, **kwargs: Any) -> SpawnProcess:  # pyright: ignore[reportIncompatibleVariableOverride]
        process = _Process(*args, **kwargs)
        self.started.append(process)
        return process


class _Process(SpawnProcess):
    """A new Python on one thread that ignores Ctrl-C and does not run the user's script again."""

    def start(self) -> None:
        script = sys.modules["__main__"]
        blocked: set[Any] = set()
        # A script without `if __name__ == "__main__"` would begin the work again in each process.
        sys.modules["__main__"] = types.ModuleType("__main__")
        if hasattr(signal, "pthread_sigmask"):
            # Ctrl-C goes to all processes of a terminal; only the one that started the others reacts to it.
            blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            with environment(ONE_THREAD):
                super().start()
        finally:
            if hasattr(signal, "pthread_sigmask"):
                signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
            sys.modules["__main__"] = script


_state: dict[str, Any] = {}
"""In a worker process: `make`, and `work` once it is made."""


def _initialise(make: Make) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    # Libraries may print, and stdout is for the command's own output.
    os.dup2(2, 1)
    _state["make"] = make
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    cast("BaseProcess", multiprocessing.parent_process()).join()
    os._exit(1)


def _all_answers(task: object) -> list[Answer]:
    return list(sent_answers(_work, task))


def _work(task: object) -> Iterable[Any]:
    # Not in `_initialise`, where an error would break the pool.
    if "work" not in _state:
        _state["work"] = _state["make"]()
    return cast("Work", _state["work"])(task)
