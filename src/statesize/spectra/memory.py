"""What does not fit into memory is refused before anything is allocated."""

from __future__ import annotations

from pathlib import Path

import torch

from statesize.errors import EngineError
from statesize.operators import Operator
from statesize.spectra.choice import ENGINES, Engine
from statesize.spectra.cut import Cut

# Below this, asking the system costs more than it tells.
_SMALL = 2**28
_MEMORY = Path("/proc/meminfo")
_GROUP = Path("/sys/fs/cgroup")


def require_room(operator: Operator, engine: Engine, cut: Cut) -> None:
    """Refuse what would not fit for a single batch entry.

    Args:
        operator: In float64.
        engine: The engine.
        cut: The blocks that it would hold at once.

    Raises:
        EngineError: It would certainly hold more than is free; the message says how much, and what fits.
    """
    needed = int(engine.held * _needed(operator, engine, cut))
    if needed < _SMALL:
        return
    free = free_bytes(operator.device)
    if free is None or needed <= free:
        return
    smaller = [
        other.name
        for other in ENGINES.values()
        if other.takes[1](operator) and (other.windows or not cut.windowed) and _needed(operator, other, cut) <= free
    ]
    fitting = f"; these engines hold less: {', '.join(smaller)}" if smaller else ""
    raise EngineError(
        f"engine {engine.name!r} would hold at least {needed / 1e9:,.1f} GB for one head or channel of length "
        f"{cut.length:,}, and {free / 1e9:,.1f} GB are free: give a shorter sequence, or windows by past and "
        f"future{fitting}"
    )


def free_bytes(device: torch.device) -> int | None:
    """Memory that a tensor could take on a device.

    Args:
        device: CPU or another.

    Returns:
        Bytes: of the system or of its control group, whichever is less; None where nobody tells.
    """
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    if device.type != "cpu" or not _MEMORY.exists():
        return None
    lines = _MEMORY.read_text(encoding="ascii").splitlines()
    free = next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), None)
    limit = _number(_GROUP / "memory.max")
    if free is None or limit is None:
        return free
    return min(free, max(0, limit - (_number(_GROUP / "memory.current") or 0)))


def _needed(operator: Operator, engine: Engine, cut: Cut) -> int:
    return engine.footprint(operator, cut) + engine.shared(operator, cut)


def _number(path: Path) -> int | None:
    """What a file of a control group says; None where there is none, or no limit."""
    try:
        return int(path.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None
