"""The progress bar on a terminal and in a log file."""

import io

from rich.console import Console

from statesize.training.progress import ProgressBar
from statesize.training.record import StepRecord


def steps():
    yield StepRecord(1, 3.25, 0.01, 1.0, 2048, 0.5)
    yield StepRecord(2, 3.25, 0.01, 1.0, 2048, 0.5, {"loss": 2.125, "bits_per_byte": 1.75})


def drawn(terminal):
    stream = io.StringIO()
    with ProgressBar("text gla", 2, Console(file=stream, force_terminal=terminal, width=160)) as bar:
        for step in steps():
            bar(step)
    return stream.getvalue()


def test_a_log_gets_a_line_an_evaluation():
    assert drawn(terminal=False).splitlines() == [
        "text gla  step 2/2  training loss 3.250  held-out loss 2.1250  bits_per_byte 1.7500  4,096 tokens/s"
    ]


def test_a_terminal_gets_a_bar_with_loss_speed_and_time():
    shown = drawn(terminal=True)
    for part in ("text gla", "2/2", "loss 3.250", "held-out 2.125", "4,096 tokens/s", "0:00:00"):
        assert part in shown
