"""Threads: engines compute on one torch thread each, and several run side by side.

torch splits its calls over threads one by one, which gains little on small matrices, and its LU factorisations of
batches are wrong on several threads (pytorch issue 142815).
"""

from __future__ import annotations

import ctypes
import queue
import threading
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import torch

T = TypeVar("T")

_lock = threading.Lock()
# Blocks of `one_torch_thread` that are open in the process, and torch's setting before the first of them.
_open_blocks = 0
_before = 1
_here = threading.local()


@contextmanager
def one_torch_thread() -> Generator[None]:
    """Sets torch to one thread and leaves the others to `in_parallel`; the setting comes back at the end.

    Yields:
        None.
    """
    global _open_blocks, _before
    if hasattr(_here, "threads"):
        yield
        return
    with _lock:
        _before = _before if _open_blocks else torch.get_num_threads()
        _open_blocks += 1
        torch.set_num_threads(1)
        _here.threads = _before
    try:
        yield
    finally:
        with _lock:
            del _here.threads
            _open_blocks -= 1
            torch.set_num_threads(_before)


def free_threads() -> int:
    """How many threads `in_parallel` may use: inside of `one_torch_thread` what torch was set to, elsewhere 1."""
    return getattr(_here, "threads", 1)


def in_parallel(tasks: Sequence[Callable[[], T]], most: int | None = None) -> list[T]:
    """Results of tasks that do not depend on each other, on the threads that `one_torch_thread` left free.

    Gradients are recorded or not, as in the calling thread. An error or an interrupt ends the other tasks as well.

    Args:
        tasks: Each spends its time in torch or numba, which let other threads run.
        most: The largest number of threads, or None.

    Returns:
        The results in the order of the tasks.
    """
    threads = min(free_threads(), len(tasks), most or len(tasks))
    if threads <= 1:
        return [task() for task in tasks]
    crew = _Crew(tasks, free_threads() // threads)
    workers = [threading.Thread(target=crew.work, daemon=True) for _ in range(threads)]
    try:
        for worker in workers:
            worker.start()
        return crew.results()
    finally:
        _stop(workers)


class _Crew:
    """Tasks that several threads take from one queue."""

    def __init__(self, tasks: Sequence[Callable[[], Any]], threads: int) -> None:
        self._threads = threads
        self._modes = torch.is_inference_mode_enabled(), torch.is_grad_enabled()
        self._tasks: queue.SimpleQueue[tuple[int, Callable[[], Any]]] = queue.SimpleQueue()
        self._found: queue.SimpleQueue[tuple[int, Any, BaseException | None]] = queue.SimpleQueue()
        self._number = len(tasks)
        for task in enumerate(tasks):
            self._tasks.put(task)

    def work(self) -> None:
        """Does tasks until none is left or one fails."""
        torch.set_num_threads(1)
        _here.threads = self._threads
        with torch.inference_mode(self._modes[0]), torch.set_grad_enabled(self._modes[1]):
            while True:
                try:
                    index, task = self._tasks.get_nowait()
                except queue.Empty:
                    return
                try:
                    self._found.put((index, task(), None))
                except BaseException as error:
                    self._found.put((index, None, error))
                    return

    def results(self) -> list[Any]:
        """Waits for all results, or raises the first error."""
        found: dict[int, Any] = {}
        while len(found) < self._number:
            index, result, error = self._found.get()
            if error is not None:
                raise error
            found[index] = result
        return [found[index] for index in range(self._number)]


def _stop(workers: Sequence[threading.Thread]) -> None:
    """Ends threads at the next line of Python that they reach; those that have nothing left to do end by themselves."""
    for worker in workers:
        worker.join(0.01)
    while alive := [worker for worker in workers if worker.is_alive()]:
        for worker in alive:
            # SystemExit, because threading passes over it without a word wherever it arrives.
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(worker.ident or 0), ctypes.py_object(SystemExit))
            worker.join(0.05)
