"""Peak memory of a measurement, in a process of its own."""

from __future__ import annotations

import ctypes
import gc
import multiprocessing
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from pathlib import Path

import torch

from statesize.errors import StatesizeError
from statesize.operators import Operator

_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def peak_bytes(
    make: Callable[[], Operator],
    calls: Sequence[Callable[[Operator], object]],
    warm: Callable[[], object],
    threads: int,
) -> list[int]:
    """Most bytes that an operator and each call on it occupy together, above what the process held before."""
    # A child process first does `warm`, so that compiled kernels and the buffers of libraries are not counted, notes
    # its resident memory, makes the operator and calls. On Linux the kernel's high-water mark is set back before each
    # call; elsewhere it also holds what making the operator and earlier calls took.
    with child_process() as pool:
        try:
            return pool.submit(_peaks, make, calls, warm, threads).result()
        except BrokenProcessPool:
            raise StatesizeError(
                "the process that measures memory was ended from outside, as happens when memory runs out; "
                "give a shorter length"
            ) from None


def child_process() -> ProcessPoolExecutor:
    """A process for one benchmark, so that what others left behind is not counted."""
    methods = multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context("forkserver" if "forkserver" in methods else "spawn")
    if "forkserver" in methods:
        # The server imports torch once; its children begin with it.
        context.set_forkserver_preload([__name__])
    return ProcessPoolExecutor(1, mp_context=context)


def _peaks(
    make: Callable[[], Operator],
    calls: Sequence[Callable[[Operator], object]],
    warm: Callable[[], object],
    threads: int,
) -> list[int]:
    torch.set_num_threads(threads)
    warm()
    before = resident_bytes()
    operator = make()
    peaks: list[int] = []
    for call in calls:
        forget_peak()
        # What is returned counts too, and is gone before the next call.
        call(operator)
        peaks.append(max(0, peak_resident_bytes() - before))
    return peaks


def resident_bytes() -> int:
    """Bytes that this process occupies now, freed memory given back; the most so far where the system tells no more."""
    _give_back()
    return _memory("VmRSS")


def peak_resident_bytes() -> int:
    """Most bytes that this process occupied since `forget_peak`, or ever where the system cannot forget."""
    return _memory("VmHWM")


def forget_peak() -> None:
    """Set the high-water mark of this process back to what it occupies now; on Linux only."""
    _give_back()
    with suppress(OSError):
        _RESET.write_text("5", encoding="ascii")


def _give_back() -> None:
    # What is free but kept would be used again without being seen.
    gc.collect()
    if sys.platform == "linux":
        with suppress(AttributeError):  # musl has no such function
            ctypes.CDLL(None).malloc_trim(0)


def _memory(name: str) -> int:
    """Resident memory now, or the highest so far where the system tells no more, in bytes."""
    if _STATUS.exists():
        lines = _STATUS.read_text(encoding="utf-8").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
