"""Progress on stderr: a bar where somebody looks, plain lines elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars

if TYPE_CHECKING:
    from statesize.profiling import Progress

_NAMED = 3


def say(message: str) -> None:
    """Print a line on stderr.

    Args:
        message: Plain text.
    """
    Console(stderr=True, highlight=False, markup=False, soft_wrap=True).print(message)


def tell_left_out(problems: Sequence[str]) -> None:
    """Print on stderr what was not read, and why.

    Args:
        problems: Place and problem of each line or row; of many, the first are printed.
    """
    if problems:
        more = f", and {len(problems) - _NAMED} more" if len(problems) > _NAMED else ""
        say(f"Left out {len(problems)}: {'; '.join(problems[:_NAMED])}{more}.")


class ProfileProgress:
    """Bars of profiles on stderr, one a model; plain lines where stderr is no terminal."""

    def __init__(self) -> None:
        console = Console(stderr=True)
        self._bars = Bars(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[mixer]}", markup=False),
            console=console,
            disable=not console.is_terminal,
        )
        self._plain = not console.is_terminal

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._bars.stop()

    def model(self, name: str, sequences: int) -> Callable[[Progress], None]:
        """Begin a model.

        Args:
            name: Its name.
            sequences: How many sequences it will be profiled over.

        Returns:
            What `statesize.profile` takes as `on_progress`.
        """
        task = self._bars.add_task(f"profiling {name}", total=None, mixer="")
        before = done = 0

        def update(progress: Progress) -> None:
            nonlocal before, done
            # Counted, because several processes finish sequences in any order.
            done += 1
            before += progress.resumed
            if before and not progress.resumed:
                say(f"profiling {name}: {before} mixers of sequences were measured by an earlier run; they are kept")
                before = 0
            if self._plain and (sequences == 1 or progress.mixer + 1 == progress.mixers):
                place = f"sequence {progress.sequence + 1} of {sequences}, mixer {progress.mixer + 1} of"
                say(f"profiling {name}: {place} {progress.mixers} ({progress.name})")
            elif not self._plain:
                total = sequences * progress.mixers
                self._bars.update(task, total=total, completed=done, mixer=progress.name if done < total else "")

        return update
