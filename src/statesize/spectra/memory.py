"""Refuses what does not fit into memory before anything is allocated."""

from __future__ import annotations

from pathlib import Path

import torch

from statesize.errors import EngineError
from statesize.operators import Operator
from statesize.spectra.choice import ORDER
from statesize.spectra.cut import Cut
from statesize.spectra.engine import Engine

# Below this, asking the system costs more than it tells.
_SMALL = 2**28


def require_memory(operator: Operator, engine: Engine, cut: Cut, free: int | None = None) -> None:
    """EngineError if the engine needs more for one batch entry than is free, by default what the system says."""
    needed = engine.least_bytes(operator, cut)
    if needed < _SMALL:
        return
    free = free_bytes(operator.device) if free is None else free
    if free is None or needed <= free:
        return
    smaller = [
        other.name
        for other in ORDER
        if other.declines(operator, cut, ()) is None
        and other.footprint(operator, cut) + other.shared_footprint(operator, cut) <= free
    ]
    fitting = f"; these engines hold less: {', '.join(smaller)}" if smaller else ""
    raise EngineError(
        f"engine {engine.name!r} would hold at least {needed / 1e9:,.1f} GB for one head or channel of length "
        f"{cut.length:,}, and {free / 1e9:,.1f} GB are free: give a shorter sequence, or windows by past and "
        f"future{fitting}"
    )


def free_bytes(
    device: torch.device, system: Path = Path("/proc/meminfo"), group: Path = Path("/sys/fs/cgroup")
) -> int | None:
    """Bytes that a tensor could take, the less of the system's and its control group's; None where nobody says."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    if device.type != "cpu" or not system.exists():
        return None
    lines = system.read_text(encoding="ascii").splitlines()
    free = next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), None)
    limit = _number(group / "memory.max")
    if free is None or limit is None:
        return free
    return min(free, max(0, limit - (_number(group / "memory.current") or 0)))


def _number(path: Path) -> int | None:
    """The number in a file of a control group; None where there is no file, or no limit."""
    try:
        return int(path.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None
