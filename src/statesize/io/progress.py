"""Progress on stderr: bars with the remaining time in a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeElapsedColumn
from rich.table import Column
from rich.text import Text

from statesize.io.text import printable


def say(message: str) -> None:
    """Print a line on stderr."""
    Console(stderr=True, highlight=False, markup=False, soft_wrap=True).print(printable(message))


def duration(seconds: float) -> str:
    """A time as text, such as "12 s", "3 minutes", "5 hours" or "1,000 days"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} minutes"
    return f"{seconds / 3600:.0f} hours" if seconds < 172800 else f"{seconds / 86400:,.0f} days"


# Off a terminal, the share of the work and the seconds that lie between two lines at least; steps of a tenth add up to
# a little less than tenths.
_STEP, _PAUSE = 0.1 - 1e-9, 30.0


class Bars:
    """Bars in a terminal; elsewhere a few plain lines, unless `lines` is False; nothing if `quiet`."""

    def __init__(self, quiet: bool = False, *, lines: bool = True) -> None:
        console = Console(stderr=True)
        shown = console.is_terminal and not console.is_dumb_terminal and not quiet
        self.plain = lines and not shown and not quiet
        self.rich = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            _TimeLeft(),
            TextColumn("{task.fields[detail]}", markup=False, table_column=Column(no_wrap=True, overflow="ellipsis")),
            console=console,
            disable=not shown,
        )

    def __enter__(self) -> Self:
        self.rich.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.rich.stop()

    def begin(self, description: str, total: int | None = None) -> Bar:
        """Begin a bar; `total` is None if `update` sets it."""
        return Bar(self, description, total)


@contextmanager
def reporting(
    on_progress: Callable[..., Any] | None, description: str, total: int | None = None
) -> Generator[Callable[..., Any]]:
    """What tells progress: the caller's function, or in a terminal a bar."""
    with Bars(on_progress is not None, lines=False) as bars:
        yield on_progress or bars.begin(description, total).update


class Bar:
    """One bar."""

    def __init__(self, bars: Bars, description: str, total: int | None) -> None:
        self._bars, self._description = bars, printable(description)
        self._task = bars.rich.add_task(self._description, total=total, detail="", end=None)
        self._resumed = 0
        self._start = time.monotonic()  # when the first part of this run was begun
        self._said = -1.0, 0.0  # the share of the work and the time of the last line

    def note(self, message: str) -> None:
        """Print a line, in a terminal above the bar."""
        line = printable(f"{self._description}: {message}")
        if self._bars.plain:
            say(line)
        elif not self._bars.rich.disable:
            self._bars.rich.console.print(line, highlight=False, markup=False, soft_wrap=True)

    def keep(self, parts: int) -> None:
        """Leave parts of an earlier run out of the estimated speed."""
        self._resumed += parts

    def update(self, done: int, total: int, detail: str, left: float | None = None, *, line: bool = True) -> None:
        """Show the parts done, earlier runs included, details of the last one, and the seconds left if known.

        Without `left`, every part that is left takes as long as those that this run has done, from its first one on.

        Off a terminal a line is printed as soon as the time is known, and others after a tenth of the work and half a
        minute; `line` says whether this may be one.
        """
        now, own = time.monotonic(), done - self._resumed
        if own <= 0:
            self._start = now
        elif left is None:
            left = (now - self._start) * (total - done) / own
        left = None if done >= total else left
        share, said = done / total, self._said
        is_due = said[0] < 0 or (share - said[0] > _STEP and now - said[1] >= _PAUSE)
        if self._bars.plain and line and left is not None and is_due:
            self._said = share, now
            self.note(f"{detail}; about {duration(left)} left")
        end, detail = None if left is None else now + left, printable(detail) if done < total else ""
        self._bars.rich.update(self._task, completed=done, total=total, end=end, detail=detail)


class _TimeLeft(ProgressColumn):
    """Time to the expected end; it counts down during a long part."""

    def render(self, task: Task) -> Text:
        """The cell of a bar."""
        end: float | None = task.fields["end"]
        return Text("" if end is None else f"{duration(max(end - time.monotonic(), 0.0))} left")
