"""What comes of a run, wherever it is done."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from statesize.studies.grid.grid import Run
from statesize.studies.grid.run import Row

ATTEMPTS = 3
"""How often a run is begun whose worker is killed."""

WORKER_ENVIRONMENT = {
    # One thread a run: more of them slow tensors of this size down, and their workers spin while they wait.
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    # glibc gives larger blocks back to the system at each free by default, and every step faults them in again.
    "MALLOC_MMAP_THRESHOLD_": str(2**30),
    "MALLOC_TRIM_THRESHOLD_": str(2**32),
}
"""Environment of the processes in which runs are done."""


@dataclass(frozen=True)
class Outcome:
    """A run that came to its end.

    Attributes:
        run: The run.
        rows: What `carry_out` gave; empty where the run failed.
        error: Why it failed; empty where it did not.
    """

    run: Run
    rows: tuple[Row, ...]
    error: str = ""


Executor: TypeAlias = Callable[[Sequence[Run]], Iterator[Outcome]]
"""Does runs and gives their outcomes as they come, in any order."""
