"""How a command prints: its result on stdout, and what it does meanwhile on stderr."""

from __future__ import annotations

import os
import webbrowser
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cyclopts import Parameter

from statesize.cli.options.measuring import Flag
from statesize.io.progress import Bars, say

if TYPE_CHECKING:
    from statesize.profiling import Profile


# Read by huggingface_hub and transformers when they are imported, which happens when a model is loaded.
_NO_BARS = "HF_HUB_DISABLE_PROGRESS_BARS"
_ERRORS_ONLY = "TRANSFORMERS_VERBOSITY"


@Parameter(name="*")
@dataclass(frozen=True)
class Printing:
    """What is printed.

    Attributes:
        json: Print the result as one JSON document.
        quiet: Print nothing on stderr but errors and what was left out.
    """

    json: Flag = False
    quiet: Flag = False

    def say(self, message: str) -> None:
        """Print a line on stderr, unless that is to be quiet."""
        from statesize.io.progress import say

        if not self.quiet:
            say(message)

    def bars(self) -> Bars:
        """Progress on stderr, or none."""
        from statesize.io.progress import Bars

        return Bars(self.quiet)

    @contextmanager
    def step(self, description: str) -> Generator[None]:
        """Show that something is being done that has no measure of its progress."""
        with self.bars() as bars:
            bars.begin(description)
            yield

    def hush_libraries(self) -> None:
        """Keep back the warnings of transformers, and if it is to be quiet the bars of the hub; before the import."""
        os.environ.setdefault(_ERRORS_ONLY, "error")
        if self.quiet:
            os.environ.setdefault(_NO_BARS, "1")


TEXT = Printing()
"""The default of what is printed."""


_NAMED = 3


def tell_left_out(problems: Sequence[str]) -> None:
    """Print on stderr what was not read, and why."""
    if problems:
        more = f", and {len(problems) - _NAMED} more" if len(problems) > _NAMED else ""
        say(f"Left out {len(problems)}: {'; '.join(problems[:_NAMED])}{more}.")


def tell_page(path: Path, printing: Printing, *, open_page: bool) -> None:
    """Say where a report lies, and open it if that is wanted."""
    printing.say(f"Report: {path}")
    if open_page and not webbrowser.open(path.absolute().as_uri()):
        printing.say(f"No browser could be started; open {path.absolute().as_uri()} in one.")


def read_profiles(folders: Sequence[Path], printing: Printing) -> list[Profile]:
    """Read profiles from their folders, with a bar."""
    from statesize.profiling import Profile

    profiles: list[Profile] = []
    with printing.bars() as bars:
        bar = bars.begin("reading profiles", len(folders))
        for folder in folders:
            profiles.append(Profile.load(folder))
            bar.update(len(profiles), len(folders), str(folder), line=False)
    return profiles
