"""Threads: engines compute on one torch thread each, and several run side by side.

torch splits its calls over threads one by one, which gains little on small matrices, and its LU factorisations of
batches are wrong on several threads (pytorch issue 142815).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import TypeVar

import torch

T = TypeVar("T")

_lock = threading.Lock()
# Blocks of `one_torch_thread` that are open in the process, and torch's setting before the first of them.
_open_blocks = 0
_before = 1
# Of each thread: how many more it may use, and what is set when its work is no longer wanted.
_here = threading.local()


class _UnwantedError(Exception):
    """The work of this thread is no longer wanted."""


@contextmanager
def torch_threads(number: int | None) -> Generator[None]:
    """Set the threads of torch; the setting comes back at the end. None leaves it."""
    before = torch.get_num_threads()
    torch.set_num_threads(number or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def one_torch_thread() -> Generator[None]:
    """Set torch to one thread and leave the others to `in_parallel`; the setting comes back at the end."""
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


def end_if_unwanted() -> None:
    """End a task of `in_parallel` of which another failed or was interrupted; long tasks call this again and again."""
    unwanted: threading.Event | None = getattr(_here, "unwanted", None)
    if unwanted is not None and unwanted.is_set():
        raise _UnwantedError


def in_parallel(tasks: Sequence[Callable[[], T]], most: int | None = None) -> list[T]:
    """Results of independent tasks, in order, on at most so many of the threads that `one_torch_thread` left free."""
    # The tasks spend their time in torch or numba, which let other threads run. Gradients are recorded or not, as in
    # the calling thread. An error or an interrupt ends the other tasks where they next call `end_if_unwanted`.
    threads = min(free_threads(), len(tasks), most or len(tasks))
    if threads <= 1:
        return [task() for task in tasks]
    each, unwanted = free_threads() // threads, threading.Event()
    inference, gradients = torch.is_inference_mode_enabled(), torch.is_grad_enabled()

    def prepare() -> None:
        torch.set_num_threads(1)
        _here.threads, _here.unwanted = each, unwanted

    def run(task: Callable[[], T]) -> T:
        with torch.inference_mode(inference), torch.set_grad_enabled(gradients):
            end_if_unwanted()
            return task()

    with ThreadPoolExecutor(threads, "statesize", prepare) as pool:
        try:
            results = [pool.submit(run, task) for task in tasks]
            wait(results, return_when=FIRST_EXCEPTION)
            failed = next((result for result in results if result.done() and result.exception()), None)
            return [result.result() for result in ([failed] if failed else results)]
        finally:
            unwanted.set()
            pool.shutdown(wait=False, cancel_futures=True)
