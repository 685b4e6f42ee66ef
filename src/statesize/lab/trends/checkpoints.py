"""Checkpoints of a training, the step of each, and its loss."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from statesize.check import several
from statesize.errors import InputError
from statesize.io.files import os_errors

# "step-000250" of statesize, "checkpoint-500" of a Trainer, "step1000" and "stage1-step1000-tokens5B" of the hub.
_STEP = re.compile(r"step[-_]?(\d+)|(\d+)$", re.IGNORECASE)


@dataclass(frozen=True)
class Checkpoint:
    """A model of a series: its name in tables, what `load_model` takes, and its step, where its name has one."""

    name: str
    model: str
    revision: str | None
    step: int | None


def find_checkpoints(
    arguments: str | os.PathLike[str] | Iterable[str | os.PathLike[str]], revisions: Sequence[str] = ()
) -> list[Checkpoint]:
    """Checkpoints of folders, folders of checkpoints, names and ids, by their steps where they have some."""
    expected = "folders of models, or an id of the hub"
    given = [arguments] if isinstance(arguments, str | os.PathLike) else several("checkpoints", arguments, expected)
    models = list(dict.fromkeys(model for name in given for model in _expanded(str(name))))
    ends = [Path(model).name for model in models]
    found = [
        Checkpoint(revision or (end if ends.count(end) == 1 else model), model, revision, _step_of(revision or end))
        for model, end in zip(models, ends, strict=True)
        for revision in (revisions or [None])
    ]
    if len(found) < 2 or (revisions and len(models) > 1):
        raise InputError(
            f"checkpoints must be at least 2 different ones, got {', '.join(models) or 'none'}. Give the folder of a "
            "training that keeps some (statesize lab train --keep-every), several folders, or an id with --revisions."
        )
    return sorted(found, key=lambda checkpoint: -1 if checkpoint.step is None else checkpoint.step)


def _expanded(name: str) -> list[str]:
    """The checkpoints that a name stands for; in the folder of a training, "best" and the like have no step."""
    folders = [config.parent for config in Path(name).glob("*/config.json")]
    return sorted(str(folder) for folder in folders if _step_of(folder.name) is not None) or [name]


def _step_of(name: str) -> int | None:
    found = _STEP.search(name)
    return None if found is None else int(found[1] or found[2])


def read_losses(checkpoints: Sequence[Checkpoint]) -> dict[str, float]:
    """The loss at each step, by the log.jsonl beside the checkpoints or the trainer_state.json of the last."""
    first, last = (Path(checkpoints[at].model) for at in (0, -1))
    logs = (first.absolute().parent / "log.jsonl", last / "trainer_state.json")
    rows: list[Any] = []
    for log in filter(Path.is_file, logs):
        with os_errors(f"the log {log} cannot be read", "Move it away.", ValueError, KeyError):
            # A run that was killed may end in a line that is no JSON.
            lines = [line for line in log.read_text("utf-8").splitlines() if line.endswith("}")]
            rows += json.loads(log.read_bytes())["log_history"] if log is logs[1] else map(json.loads, lines)
    known = {row["step"]: float(row["loss"]) for row in rows if {"step", "loss"} <= row.keys()}
    steps = {one.name: one.step for one in checkpoints if one.step is not None and known}
    return {name: known[min(known, key=lambda at: abs(at - step))] for name, step in steps.items()}
