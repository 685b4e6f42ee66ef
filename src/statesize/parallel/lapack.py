"""The routines of LAPACK that torch does not have, on one thread: scipy's OpenBLAS has threads besides torch's."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import cache
from typing import Any, cast

_lock = threading.Lock()
# Open blocks of `one_thread_lapack` in the process, and the setting before the first of them.
_open_blocks = 0
_before = 1
# As scipy's wheels name the functions of their OpenBLAS, newer and older ones.
_PREFIXES = ("scipy_openblas", "openblas")


@contextmanager
def one_thread_lapack() -> Generator[Any]:
    """`scipy.linalg.lapack`, with scipy's OpenBLAS on one thread until the last open block ends."""
    global _open_blocks, _before
    # Only where it is needed: importing it takes as long as importing all of this package.
    from scipy.linalg import lapack

    get, put = openblas_threads()
    with _lock:
        _before = _before if _open_blocks else get()
        _open_blocks += 1
        put(1)
    try:
        yield cast("Any", lapack)
    finally:
        with _lock:
            _open_blocks -= 1
            if not _open_blocks:
                put(_before)


@cache
def openblas_threads() -> tuple[Callable[[], int], Callable[[int], object]]:
    """Functions that return and set how many threads scipy's OpenBLAS uses; without effect for another BLAS."""
    from scipy.linalg import cython_blas

    library = ctypes.CDLL(cython_blas.__file__)
    for prefix in _PREFIXES:
        if hasattr(library, f"{prefix}_set_num_threads"):
            return getattr(library, f"{prefix}_get_num_threads"), getattr(library, f"{prefix}_set_num_threads")
    return lambda: 1, lambda count: None
