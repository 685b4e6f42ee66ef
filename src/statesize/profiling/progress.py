"""Progress of a profile as a bar."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from statesize.profiling.gathering import Progress

if TYPE_CHECKING:
    from statesize.progress import Bars


def profile_bar(bars: Bars, name: str, sequences: int | None) -> Callable[[Progress], None]:
    """Begin the bar of a profile; for its `on_progress`."""
    bar = bars.begin(f"profiling {name}")
    before = done = 0

    def update(progress: Progress) -> None:
        nonlocal before, done
        # Counted, because several processes finish sequences in any order.
        done += 1
        before += progress.resumed
        bar.keep(progress.resumed)
        if before and not progress.resumed:
            bar.note(f"{before} mixers of sequences were measured by an earlier run; they are kept")
            before = 0
        # Inputs that are read while they are measured do not say how many they are.
        total = sequences or progress.sequence + 1
        of = "" if sequences is None else f" of {sequences}"
        place = f"sequence {progress.sequence + 1}{of}, mixer {progress.mixer + 1} of {progress.mixers}"
        whole = sequences == 1 or progress.mixer + 1 == progress.mixers
        bar.update(done, total * progress.mixers, f"{place} ({progress.name})", line=whole)

    return update
