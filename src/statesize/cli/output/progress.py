"""What commands tell on stderr of their own work: texts that are left out, and a training's bar."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from statesize.progress import Bars, say

if TYPE_CHECKING:
    from statesize.lab.training.record import StepRecord

_NAMED = 3


def tell_left_out(problems: Sequence[str]) -> None:
    """Print on stderr what was not read, and why."""
    if problems:
        more = f", and {len(problems) - _NAMED} more" if len(problems) > _NAMED else ""
        say(f"Left out {len(problems)}: {'; '.join(problems[:_NAMED])}{more}.")


def training_bar(bars: Bars, name: str, steps: int) -> Callable[[StepRecord], None]:
    """Begin the bar of a training with loss and speed, and a plain line at each held-out evaluation elsewhere."""
    bar = bars.begin(name, steps)
    loss = speed = 0.0
    held_out = ""

    def update(record: StepRecord) -> None:
        nonlocal loss, speed, held_out
        if not speed:
            bar.keep(record.step - 1)
        # An exponential mean over about 20 steps: single steps jump too much to be read.
        weight = 0.05 if speed else 1.0
        loss += weight * (record.loss - loss)
        speed += weight * (record.tokens / record.seconds - speed)
        if record.held_out is not None:
            held_out = "".join(f", held-out {figure} {value:.4f}" for figure, value in record.held_out.items())
        detail = f"step {record.step} of {steps}: loss {loss:.3f}, {speed:,.0f} tokens/s{held_out}"
        bar.update(record.step, steps, detail, line=record.held_out is not None)

    return update
