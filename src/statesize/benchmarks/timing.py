"""How calls are timed, on machines that do other things as well, and what this machine is."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from statesize.io.machine import machine
from statesize.spectra.factorisation import singular_values
from statesize.version import installed


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


def midpoints(length: int, count: int) -> list[int]:
    """Cut positions in the middle of equal parts of 1 … L − 1, whose mean cost is close to that of all positions."""
    count = min(count, length - 1)
    return [1 + (2 * k + 1) * (length - 1) // (2 * count) for k in range(count)]


def dense_seconds(matrix: Tensor, positions: list[int]) -> float:
    """Seconds of the definition at all positions of one T, (L, L), scaled from a sample of positions."""

    def loop() -> None:
        for i in positions:
            singular_values(matrix[i:, :i])

    return seconds(loop) / len(positions) * (matrix.shape[-1] - 1)


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
        "versions": versions(*packages),
    }


def versions(*packages: str) -> dict[str, str]:
    """Versions of what does the arithmetic, and of packages."""
    return installed("torch", "numpy", "numba", *packages)
