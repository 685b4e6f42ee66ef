"""Threads that share the work of engines, and the locks that LAPACK needs."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from typing import Any, TypeVar, cast

import numpy as np
import numpy.typing as npt
import torch
from numba.extending import get_cython_function_address

Array = npt.NDArray[np.float64]

_lock = threading.Lock()
# Open blocks of `one_thread_lapack` in the process, and the setting before the first of them.
_open_blocks = 0
_before = 1
# Columns that LAPACK transforms at once.
_BLOCK = 64
# As scipy's wheels name the functions of their OpenBLAS, newer and older ones.
_PREFIXES = ("scipy_openblas", "openblas")


@contextmanager
def one_lapack_thread() -> Generator[None]:
    """Sets scipy's OpenBLAS to one thread until the last open block ends."""
    global _open_blocks, _before
    get, put = openblas_threads()
    with _lock:
        _before = _before if _open_blocks else get()
        _open_blocks += 1
        put(1)
    try:
        yield
    finally:
        with _lock:
            _open_blocks -= 1
            if not _open_blocks:
                put(_before)


def tridiagonal(matrix: Array) -> tuple[Array, Array, Array, Array]:
    """Θ = Qᵀ A Q of symmetric A (n, n), n ≥ 2: its diagonal, the entries beside it, Q's reflections and factors."""
    # The reflections are the columns below the diagonal of an (n, n) array.
    n = matrix.shape[0]
    reflections = np.array(matrix, np.float64, order="F")
    diagonal, beside, factors, work = np.empty(n), np.empty(n - 1), np.empty(n - 1), np.empty(_BLOCK * n)
    order, size, info = ctypes.c_int(n), ctypes.c_int(work.size), ctypes.c_int()
    arrays = (part.ctypes.data for part in (diagonal, beside, factors, work))
    _dsytrd()(b"L", order, reflections.ctypes.data, order, *arrays, size, info)
    return diagonal, beside, reflections, factors


def turned(reflections: Array, factors: Array, columns: Array) -> Array:
    """Qᵀ B for B (n, m), with Q as `tridiagonal` returns it."""
    # Only where it is needed: importing it takes as long as importing all of this package.
    from scipy.linalg import lapack

    below, rest = np.asfortranarray(reflections[1:, :-1]), np.asfortranarray(columns[1:])
    work = _BLOCK * columns.shape[1]
    result, _, _ = cast("Any", lapack).dormqr("L", "T", below, factors, rest, work, overwrite_c=1)
    return np.concatenate([columns[:1], result])


@cache
def _dsytrd() -> Callable[..., None]:
    # Called by its address, as scipy's own wrapper lets no other thread of Python run meanwhile.
    pointer, integer = ctypes.c_void_p, ctypes.POINTER(ctypes.c_int)
    arguments = (ctypes.c_char_p, integer, pointer, integer, pointer, pointer, pointer, pointer, integer, integer)
    address = cast("Any", get_cython_function_address)("scipy.linalg.cython_lapack", "dsytrd")
    return ctypes.CFUNCTYPE(None, *arguments)(address)


@cache
def openblas_threads() -> tuple[Callable[[], int], Callable[[int], object]]:
    """Functions that return and set how many threads scipy's OpenBLAS uses; without effect for another BLAS."""
    library = ctypes.CDLL(import_module("scipy.linalg.cython_blas").__file__)
    for prefix in _PREFIXES:
        if hasattr(library, f"{prefix}_set_num_threads"):
            return getattr(library, f"{prefix}_get_num_threads"), getattr(library, f"{prefix}_set_num_threads")
    return lambda: 1, lambda count: None


T = TypeVar("T")

_lock_threads = threading.Lock()
# Blocks of `one_torch_thread` that are open in the process, and torch's setting before the first of them.
_open_blocks_threads = 0
_before_threads = 1
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
    global _open_blocks_threads, _before_threads
    if hasattr(_here, "threads"):
        yield
        return
    with _lock_threads:
        _before_threads = _before_threads if _open_blocks_threads else torch.get_num_threads()
        _open_blocks_threads += 1
        torch.set_num_threads(1)
        _here.threads = _before_threads
    try:
        yield
    finally:
        with _lock_threads:
            del _here.threads
            _open_blocks_threads -= 1
            torch.set_num_threads(_before_threads)


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
