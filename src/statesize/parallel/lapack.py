"""The routines of LAPACK that torch does not have, on one thread: scipy's OpenBLAS has threads besides torch's."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from typing import Any, cast

import numpy as np
import numpy.typing as npt
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
