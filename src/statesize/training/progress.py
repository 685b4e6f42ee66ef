"""The progress bar of a training run, on stderr."""

from __future__ import annotations

from datetime import timedelta
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from statesize.training.record import StepRecord


class ProgressBar:
    """A bar with steps, losses, tokens a second and remaining time; pass it to `train` as `on_progress`."""

    # Where stderr is no terminal (a log file), a plain line is printed at each held-out evaluation instead.

    def __init__(self, description: str, steps: int, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True)
        self._description, self._steps = description, steps
        self._bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TextColumn("{task.completed}/{task.total}"),
            TextColumn("loss {task.fields[loss]}  held-out {task.fields[held_out]}  {task.fields[speed]} tokens/s"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._task = self._bar.add_task(description, total=steps, loss="–", held_out="–", speed="–")
        self._speed = self._loss = self._seconds = 0.0

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def __call__(self, record: StepRecord) -> None:
        """Shows one step."""
        speed = record.tokens / record.seconds
        # An exponential mean over about 20 steps: single steps jump too much to be read.
        weight = 0.05 if self._speed else 1.0
        self._speed += weight * (speed - self._speed)
        self._loss += weight * (record.loss - self._loss)
        self._seconds += weight * (record.seconds - self._seconds)
        shown = {"loss": f"{self._loss:.3f}", "speed": f"{self._speed:,.0f}"}
        if record.held_out is not None:
            shown["held_out"] = f"{record.held_out['loss']:.3f}"
            if not self._console.is_terminal:
                figures = "  ".join(f"{name} {value:.4f}" for name, value in record.held_out.items())
                self._console.print(
                    f"{self._description}  step {record.step}/{self._steps}  training loss {shown['loss']}"
                    f"  held-out {figures}  {shown['speed']} tokens/s{self._left(record.step)}",
                    highlight=False,
                    markup=False,
                    soft_wrap=True,
                )
        self._bar.tasks[0].fields.update(shown)
        self._bar.update(self._task, completed=record.step)

    def _left(self, step: int) -> str:
        left = round((self._steps - step) * self._seconds)
        return f"  {timedelta(seconds=left)} left" if step < self._steps else ""
