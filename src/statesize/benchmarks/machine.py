"""What a benchmark ran on."""

from __future__ import annotations

import os
import platform
from pathlib import Path

from statesize.version import installed


def machine() -> str:
    """The processor, as far as the system names it, and how many of them there are."""
    name = platform.processor() or platform.machine()
    described = Path("/proc/cpuinfo")
    if described.exists():
        lines = described.read_text(encoding="utf-8").splitlines()
        name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), name)
    return f"{name}, {os.cpu_count()} processors, {platform.system()} {platform.machine()}"


def versions() -> dict[str, str]:
    """Versions of what does the arithmetic."""
    return installed("torch", "numpy", "numba")
