"""Profiles that were saved."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from statesize.cli.output.printing import Printing
    from statesize.profiling import Profile


def read_profiles(folders: Sequence[Path], printing: Printing) -> list[Profile]:
    """Read profiles from their folders, with a bar."""
    from statesize.profiling import Profile

    found: list[Profile] = []
    with printing.bars() as bars:
        bar = bars.begin("reading profiles", len(folders))
        for folder in folders:
            found.append(Profile.load(folder))
            bar.update(len(found), len(folders), str(folder), line=False)
    return found
