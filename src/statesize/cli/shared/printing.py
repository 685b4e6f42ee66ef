"""How a command prints: its result on stdout as JSON, and what it does meanwhile on stderr."""

from __future__ import annotations

import json
import os
import shlex
import sys
import webbrowser
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Self, cast

from cyclopts import Parameter

from statesize.cli.shared.options import OFTEN, Flag, Output
from statesize.io.json_values import json_values
from statesize.io.progress import Bars, say
from statesize.io.text import printable

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
        if not self.quiet:
            say(message)

    def next(self, *command: object, why: str = "") -> None:
        """Say, after all else, what to do next, and what that tells: a command that works as it is printed."""
        if not self.json:
            # What goes to a file or pipe waits in a buffer.
            sys.stdout.flush()
            self.say(f"next{why and f' ({why})'}: {shlex.join(['statesize', *map(str, command)])}")

    @contextmanager
    def bars(self) -> Generator[Bars]:
        """Progress on stderr, or none; kernels that numba compiles meanwhile are told, as that takes long."""
        with Bars(self.quiet) as bars, ExitStack() as stack:
            if "numba" in sys.modules:
                from numba.core import event

                tell = cache(lambda: bars.say("Compiling kernels, once: later runs read them from disk."))
                told: dict[str, Callable[..., None]] = {"on_start": lambda *_: tell(), "on_end": lambda *_: None}
                events = cast("Any", event)
                stack.enter_context(
                    events.install_listener("numba:compile", type("Compiled", (events.Listener,), told)())
                )
            yield bars

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


@Parameter(name="*")
@dataclass(frozen=True)
class Reporting(Printing):
    """What is printed, and the page of a result.

    Attributes:
        html: HTML file for a page with the charts.
        open_page: Show the page in the browser; without --html its file is in this folder, named after the result.
    """

    html: Output = None
    open_page: Annotated[Flag, Parameter(name="--open", group=OFTEN)] = False

    def named(self, name: str) -> Self:
        """The same with a file, of this name if it is only to be opened; refuse one that cannot be written."""
        from statesize.io.files import check_report_path

        named = replace(self, html=Path(f"{name}.html")) if self.open_page and self.html is None else self
        if named.html is not None:
            check_report_path(named.html, "html")
        return named

    def tell_report(self) -> None:
        """Say where the page lies, and open it if that is wanted."""
        if self.html is None:
            return
        address = self.html.absolute().as_uri()
        self.say(f"Report: {self.html}")
        if self.open_page and not webbrowser.open(address):
            self.say(f"No browser could be started; open {address} in one.")


TEXT, REPORTING = Printing(), Reporting()
"""The defaults of what is printed."""


_NAMED = 3


def tell_left_out(problems: Sequence[str]) -> None:
    """Print on stderr what was not read, and why."""
    if problems:
        more = f", and {len(problems) - _NAMED} more" if len(problems) > _NAMED else ""
        say(f"Left out {len(problems)}: {'; '.join(problems[:_NAMED])}{more}.")


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


SCHEMA = 1


def print_json(document: dict[str, Any]) -> None:
    """Print one JSON document on stdout, with null for what is not known."""
    print(printable(json.dumps(json_values(document), ensure_ascii=False, allow_nan=False)))
