"""The machine: its processor and its free memory."""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path

import torch


def free_bytes(
    device: torch.device, system: Path = Path("/proc/meminfo"), group: Path = Path("/sys/fs/cgroup")
) -> int | None:
    """Free bytes of a device: on a CPU the smaller of the system's and the control group's; None if not reported."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    if device.type != "cpu" or not system.exists():
        return None
    available = re.search(r"MemAvailable:\s*(\d+)", system.read_text(encoding="ascii"))
    free = int(available[1]) * 1024 if available else None
    limit = _number(group / "memory.max")
    if free is None or limit is None:
        return free
    return min(free, max(0, limit - (_number(group / "memory.current") or 0)))


def _number(path: Path) -> int | None:
    """The number in a file of a control group; None without the file or without a limit."""
    try:
        return int(path.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None


def machine() -> str:
    """The processor's name, the number of processors, and the system."""
    cpuinfo = Path("/proc/cpuinfo")
    model = re.search(r"model name\s*: (.*)", cpuinfo.read_text(encoding="utf-8")) if cpuinfo.exists() else None
    name = model[1] if model else platform.processor() or platform.machine()
    return f"{name}, {os.cpu_count()} processors, {platform.system()} {platform.machine()}"
