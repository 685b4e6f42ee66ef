"""What a training run leaves behind: one JSON line per step, and their summary."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from statesize.io.files import os_errors, parse_json


@dataclass(frozen=True)
class StepRecord:
    """One optimizer step.

    Attributes:
        step: 1 for the first.
        loss: Mean training loss of the step, in nats per target, before its update.
        rate: Learning rate.
        gradient_norm: Norm of the gradient before clipping.
        tokens: Input tokens of the step.
        seconds: Wall-clock time of the step, without evaluation.
        held_out: The task's report after the step, with "loss" in nats per target and "accuracy"; None where the
            model was not evaluated.
        penalty: Mean of what regularisers added to the loss, weighted; None without any.
    """

    step: int
    loss: float
    rate: float
    gradient_norm: float
    tokens: int
    seconds: float
    held_out: dict[str, float] | None = None
    penalty: float | None = None


@dataclass(frozen=True)
class TrainingRecord:
    """A finished training run.

    Attributes:
        steps: Every step, those before a resume included.
        best_step: The step after which the held-out loss was lowest.
        best: The held-out report of that step.
        folder: Where log.jsonl, state/ and best/ lie.
    """

    steps: tuple[StepRecord, ...]
    best_step: int
    best: dict[str, float]
    folder: Path


def append_record(path: Path, record: StepRecord) -> None:
    """Adds a line to the log."""
    with os_errors(f"cannot write {path}"), path.open("a", encoding="utf-8") as stream:
        stream.write(_line(record))


def record_lines(records: Iterable[StepRecord]) -> bytes:
    """The log of some steps."""
    return "".join(map(_line, records)).encode()


def records_of(content: bytes) -> list[StepRecord]:
    """The steps of a log."""
    return [_record(line) for line in content.decode().splitlines()]


def _record(line: str) -> StepRecord:
    return StepRecord(**cast("dict[str, Any]", parse_json(line)))


def _line(record: StepRecord) -> str:
    values = {name: value for name, value in dataclasses.asdict(record).items() if value is not None}
    return json.dumps(values) + "\n"
