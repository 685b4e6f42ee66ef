"""Progress on stderr: a bar with the time left in a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Column

from statesize.io.text import printable

# Off a terminal, the seconds between two lines, and the share of the time so far, at least.
_PAUSE, _GROWTH = 30.0, 0.25
_KNOWN = 10
"""The time left is told from one part in so many on."""


def say(message: str) -> None:
    """Print a line on stderr."""
    Console(stderr=True, highlight=False, markup=False, soft_wrap=True).print(printable(message))


class Bar:
    """A bar in a terminal for the time of a block; elsewhere a few lines, unless `lines` is False; none if `quiet`."""

    def __init__(self, description: str, quiet: bool = False, *, lines: bool = True) -> None:
        console = Console(stderr=True)
        shown = console.is_terminal and not console.is_dumb_terminal and not quiet
        self._plain, self._description = lines and not shown and not quiet, printable(description)
        self._rich = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[detail]}", markup=False, table_column=Column(no_wrap=True, overflow="ellipsis")),
            console=console,
            disable=not shown,
        )
        self._task = self._rich.add_task(self._description, total=None, detail="")
        self._resumed = 0
        self._start = time.monotonic()  # when the first part of this run was done
        self._next = 0.0  # when a line is due

    def __enter__(self) -> Self:
        self._rich.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._rich.stop()

    def keep(self, parts: int) -> None:
        """Leave parts of an earlier run out of the estimated speed."""
        self._resumed += parts

    def update(self, done: int, total: int, detail: str) -> None:
        """Show the parts done, earlier runs included, a detail, and after a tenth of the parts the time left.

        Off a terminal a line is printed after the first part, and others at growing distances.
        """
        now, own = time.monotonic(), done - self._resumed
        if own <= 1:
            # What a run does once, such as loading, comes before its first part, which says nothing of the others.
            self._start = now
        elif done < total and _KNOWN * own >= total - self._resumed:
            left = timedelta(seconds=round((now - self._start) * (total - done) / (own - 1)))
            detail = f"about {left} left, {detail}"
        if self._plain and 0 < own and done < total and now >= self._next:
            self._next = now + max(_PAUSE, _GROWTH * (now - self._start))
            say(f"{self._description}: {detail}")
        self._rich.update(self._task, completed=done, total=total, detail=printable(detail) if done < total else "")
