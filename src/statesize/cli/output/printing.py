"""How a command prints: its result on stdout, and what it does meanwhile on stderr."""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cyclopts import Parameter

from statesize.cli.options.kinds import Flag

if TYPE_CHECKING:
    from statesize.progress import Bars

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
        from statesize.progress import say

        if not self.quiet:
            say(message)

    def bars(self) -> Bars:
        """Progress on stderr, or none."""
        from statesize.progress import Bars

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
"""What is printed where nobody asks for anything else."""
