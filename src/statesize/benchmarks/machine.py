"""What a benchmark ran on."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

import torch

from statesize.benchmarks.timing import clock
from statesize.version import installed

SCHEMA = 1
"""Version of the documents of benchmarks."""


def machine() -> str:
    """The processor, as far as the system names it, and how many of them there are."""
    name = platform.processor() or platform.machine()
    described = Path("/proc/cpuinfo")
    if described.exists():
        lines = described.read_text(encoding="utf-8").splitlines()
        name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), name)
    return f"{name}, {os.cpu_count()} processors, {platform.system()} {platform.machine()}"


def document(rows: list[dict[str, Any]], *packages: str, **more: Any) -> dict[str, Any]:
    """The JSON document of a benchmark: its rows, what else it found, and what it ran on, packages included."""
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
