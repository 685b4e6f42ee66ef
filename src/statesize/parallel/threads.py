"""Work in this process: one task after another, threads that share it, and libraries held at one thread meanwhile."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import Context, copy_context
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import Any, Generic, TypeAlias, TypeVar

import torch

from statesize.errors import StatesizeError
from statesize.io.files import Parts

T = TypeVar("T")
Task = TypeVar("Task")
Value = TypeVar("Value")

Work: TypeAlias = Callable[[Any], Iterable[Any]]
"""Yields the steps of a task, each as soon as it is computed, and then its value."""

Make: TypeAlias = Callable[[], Work]
"""Makes the work once in each process, for example by loading a model."""


class Step:
    """What a long task yields before its value, and its caller keeps."""


@dataclass(frozen=True)
class Done(Generic[Task, Value]):
    """A step or the value of a task, or the error that ended the task."""

    task: Task
    value: Value | None = None  # None where there is an error
    error: StatesizeError | None = None  # None where there is a value
    resumed: bool = False  # whether an earlier run had computed it

    def get(self) -> Value:
        """The value; raises the error if there is one."""
        if self.error is not None:
            raise self.error
        # The work may yield None.
        return self.value  # pyright: ignore[reportReturnType]


Executor: TypeAlias = Callable[[Iterable[Any]], Iterator[Done[Any, Any]]]
"""Runs work on tasks, in this process or as `OnRay` on a cluster, and returns their values as they come.

Each value is returned once, and those of one task are in order. An error of the work ends only its own task.
"""

Crew: TypeAlias = Callable[[Make], AbstractContextManager[Executor]]
"""Makes the executor of a work for the time of a block: `here`, or a `RayCluster`."""


def one_by_one(work: Work, tasks: Iterable[Task]) -> Iterator[Done[Task, Any]]:
    """The values of all tasks, in order, computed in this process; raises errors that are no StatesizeError."""
    for task in tasks:
        try:
            for value in work(task):
                yield Done(task, value)
                # The reference would keep the value in memory while the next one is computed.
                del value
        except StatesizeError as error:
            yield Done(task, error=error)


def here(make: Make) -> AbstractContextManager[Executor]:
    """The crew of this process."""
    return nullcontext(partial(one_by_one, make()))


def run(
    tasks: Iterable[Task], executor: Executor, parts: Parts[Value], name: Callable[[Task], str]
) -> Iterator[Done[Task, Value]]:
    """The steps and values of tasks: values that are stored under the tasks' names, others are stored as they come."""
    missing = list[Task]()
    for task in tasks:
        if (value := parts.read(name(task))) is None:
            missing.append(task)
        else:
            yield Done(task, value, resumed=True)
    for done in executor(missing):
        if done.error is None and not isinstance(done.value, Step):
            parts.write(name(done.task), done.get())
        yield done


# For each thread: how many threads it may use.
_local = threading.local()
# Blocks that hold OpenBLAS, which has one number of threads for all of a process, and what was set before the first.
_lock, _holding = threading.Lock(), set[int]()
_before = list[tuple[Callable[[int], object], int]]()


def blas_functions() -> Iterator[tuple[Callable[[], int], Callable[[int], object]]]:
    """Functions that get and set the number of threads; none for another BLAS than OpenBLAS."""
    for module in ("numpy.linalg._umath_linalg", "scipy.linalg.cython_blas"):
        library = ctypes.CDLL(import_module(module).__file__)
        # Names in newer and older wheels of scipy, and in those of numpy.
        for name in ("scipy_openblas_{}_num_threads", "openblas_{}_num_threads", "scipy_openblas_{}_num_threads64_"):
            if hasattr(library, name.format("set")):
                yield getattr(library, name.format("get")), getattr(library, name.format("set"))


@contextmanager
def one_thread() -> Generator[None]:
    """Hold torch in this thread, numpy and scipy at one thread for a block; `in_parallel` may use the others."""
    if hasattr(_local, "threads"):
        yield
        return
    # Each thread has a number of its own.
    _local.threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with _lock:
        if not _holding:
            _before[:] = [(put, get()) for get, put in blas_functions()]
        _holding.add(threading.get_ident())
        for put, _ in _before:
            put(1)
    try:
        yield
    finally:
        with _lock:
            _holding.remove(threading.get_ident())
            for put, threads in () if _holding else _before:
                put(threads)
        torch.set_num_threads(_local.threads)
        del _local.threads


def free_threads() -> int:
    """Threads that `in_parallel` may use: the setting of torch before `one_thread`, or 1 outside of it."""
    return getattr(_local, "threads", 1)


def in_parallel(tasks: Sequence[Callable[[], T]], most: int | None = None) -> list[T]:
    """Results of independent tasks, in order, on at most `most` of the free threads."""
    # Torch and numba release the GIL. Gradients are recorded as in the calling thread. After an error or an interrupt
    # no further task begins.
    threads = min(free_threads(), len(tasks), most or len(tasks))
    if threads <= 1:
        return [task() for task in tasks]
    each, inference, gradients = free_threads() // threads, torch.is_inference_mode_enabled(), torch.is_grad_enabled()

    def run(context: Context, task: Callable[[], T]) -> T:
        torch.set_num_threads(1)
        _local.threads = each
        with torch.inference_mode(inference), torch.set_grad_enabled(gradients):
            return context.run(task)

    with ThreadPoolExecutor(threads, "statesize") as pool:
        return [*pool.map(run, [copy_context() for _ in tasks], tasks)]
