"""Operators that benchmarks measure, and the time and memory that measuring them takes."""

from __future__ import annotations

import ctypes
import gc
import math
import multiprocessing
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from statesize.errors import StatesizeError
from statesize.io.machine import machine
from statesize.operators import Convolution, Operator, Recurrence, SoftmaxAttention
from statesize.spectra.engine import EngineName, Output
from statesize.version import installed

_linalg = cast("Any", torch.linalg)


@dataclass(frozen=True)
class Case:
    """An operator, an engine and its outputs."""

    name: str  # as the table shows it
    make: Callable[[int], Operator]  # the operator of a length
    engine: EngineName
    outputs: tuple[Output, ...] = ("counts", "entropy")


def gated(length: int, states: int) -> Recurrence:
    """Gated linear attention with decays near 1."""
    g = torch.Generator().manual_seed(0)
    decay = torch.sigmoid(_normal(g, length, states) + 2) ** (1 / 16)
    return Recurrence(decay, _normal(g, length, states) / math.sqrt(states), _normal(g, length, states))


def delta(length: int, states: int) -> Recurrence:
    """Gated delta rule with unit keys."""
    g = torch.Generator().manual_seed(0)
    key = torch.nn.functional.normalize(_normal(g, length, states), dim=-1)
    query = _normal(g, length, states) / math.sqrt(states)
    decay = torch.sigmoid(_normal(g, length) + 3) ** 0.25
    return Recurrence.delta_rule(key, _normal(g, length).sigmoid(), query, decay)


def full(length: int, states: int) -> Recurrence:
    """Full transitions, slightly contracting."""
    g = torch.Generator().manual_seed(0)
    A: Tensor = 0.99 * _linalg.qr(_normal(g, length, states, states)).Q
    return Recurrence(A, _normal(g, length, states), _normal(g, length, states))


def selective(length: int, states: int, channels: int) -> Recurrence:
    """Channels of a selective state-space model, A = −1 … −n."""
    g = torch.Generator().manual_seed(0)
    step = torch.nn.functional.softplus(_normal(g, channels, length, 1) - 4)
    decay = torch.exp(-step * torch.arange(1, states + 1))
    return Recurrence(decay, step * _normal(g, 1, length, states), _normal(g, 1, length, states))


def attention(length: int, width: int) -> SoftmaxAttention:
    """Softmax attention with random queries and keys: full rank."""
    g = torch.Generator().manual_seed(0)
    return SoftmaxAttention(_normal(g, length, width), _normal(g, length, width), 1 / math.sqrt(width))


def smooth_attention(length: int, width: int) -> SoftmaxAttention:
    """Softmax attention with queries and keys on a slow curve: singular values that fall fast."""
    g = torch.Generator().manual_seed(0)
    angle = 3.1 * torch.arange(length, dtype=torch.float64)[:, None] / length * torch.arange(1, 7)
    curve, mixture = torch.cat([angle.sin(), angle.cos()], -1), _normal(g, 12, width)
    return SoftmaxAttention(curve @ mixture, curve @ mixture.roll(1, 0), 0.5 / math.sqrt(width))


def modal_convolution(length: int, modes: int) -> Convolution:
    """A long kernel made of damped oscillations, as state-space models have."""
    g = torch.Generator().manual_seed(0)
    lag, mode = torch.arange(length, dtype=torch.float64), torch.arange(1, modes + 1)[:, None]
    waves = torch.exp(-0.001 * mode * lag) * torch.cos(8 * math.pi * mode * lag / length)
    return Convolution((_normal(g, modes, 1) * waves).sum(0), length)


CASES = (
    Case("gated n=64", partial(gated, states=64), "all_cuts"),
    Case("delta rule n=128", partial(delta, states=128), "all_cuts"),
    Case("full transition n=64", partial(full, states=64), "all_cuts"),
    Case("Mamba layer n=16, 32 channels", partial(selective, states=16, channels=32), "small_state", ("values",)),
    Case("gated n=128, all σ", partial(gated, states=128), "exact", ("values",)),
    Case("softmax d=64, full rank", partial(attention, width=64), "all_cuts"),
    Case("softmax d=64, decaying", partial(smooth_attention, width=64), "all_cuts"),
    Case("convolution, 32 modes", partial(modal_convolution, modes=32), "all_cuts"),
)


_VOCABULARY = 1024
# Beyond the tokens that models reserve for the beginning, the end and padding.
_FIRST_TOKEN = 8


def random_tokens(length: int) -> Tensor:
    """One sequence of tokens, (1, L) int64, from a fixed seed."""
    return torch.randint(_FIRST_TOKEN, _VOCABULARY, (1, length), generator=torch.Generator().manual_seed(0))


def _normal(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


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
    """Bytes that this process occupies after freed memory was returned, or the most so far on other systems."""
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
    """Resident memory now, or the highest so far where the system knows no more, in bytes."""
    if _STATUS.exists():
        lines = _STATUS.read_text(encoding="utf-8").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def clock() -> str:
    """What `seconds` counts: "processor" time on one thread, which neighbours do not lengthen, else "wall" time."""
    return "processor" if torch.get_num_threads() == 1 else "wall"


def now() -> float:
    """Seconds on that clock, from any moment on."""
    return time.process_time() if clock() == "processor" else time.perf_counter()


def seconds(call: Callable[[], object]) -> float:
    """Seconds of one call, as torch's number of threads has them counted."""
    start = now()
    call()
    return now() - start


SCHEMA = 1
"""Version of the documents of benchmarks."""


def document(rows: list[dict[str, Any]], *packages: str, **more: Any) -> dict[str, Any]:
    """The JSON document of a benchmark: its rows and other results, the machine and the packages."""
    return {
        "schema": SCHEMA,
        "rows": rows,
        **more,
        "threads": torch.get_num_threads(),
        "clock": clock(),
        "machine": machine(),
        "made": made(*packages),
    }


def made(*packages: str) -> dict[str, Any]:
    """What made a record: the commit, the command, versions of what does the arithmetic and of packages, the date."""
    git = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    return {
        "commit": subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip(),  # noqa: S603
        "command": shlex.join(["python", *sys.orig_argv[1:]]),
        "versions": installed("torch", "numpy", "numba", *packages),
        "date": datetime.now(UTC).date().isoformat(),
    }
