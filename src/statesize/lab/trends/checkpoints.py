"""Which checkpoints a series is made of, the training step of each, and the log of the training."""

from __future__ import annotations

import glob
import json
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias, cast

from statesize.check import refuse
from statesize.errors import FileError, InputError
from statesize.io.files import require_regular
from statesize.lab.stored import stored_sha256
from statesize.measurement.statistics import evenly_spread

# "step-000250" of statesize, "checkpoint-500" of a Trainer, "step1000" and "stage1-step1000-tokens5B" of the hub.
_STEP, _END = re.compile(r"step[-_]?(\d+)", re.IGNORECASE), re.compile(r"(\d+)$")
_CONFIGS = ("config.json", "adapter_config.json")

Log: TypeAlias = dict[str, list[tuple[int, float]]]
"""Steps and values of each quantity."""

JSON_LINES, OF_TRAINER = "log.jsonl", "trainer_state.json"
# Quantities that are kept are those with one of these words in their names.
_KEPT = ("loss", "accuracy", "perplexity")
_MOST_POINTS = 500


@dataclass(frozen=True)
class Checkpoint:
    """One model of a series, which `load_model` loads."""

    name: str  # what tables call it
    model: str  # a folder, an id of the hub, or a bundled name
    revision: str | None = None
    step: int | None = None  # from its name

    def __str__(self) -> str:
        return self.name

    @cached_property
    def sha256(self) -> str | None:
        """A digest of its files as they are when it is first asked for; None where it is no folder or file."""
        return stored_sha256(self.model)

    @property
    def folder(self) -> Path | None:
        """Its folder, where it is one."""
        return Path(self.model) if Path(self.model).is_dir() else None


def find_checkpoints(
    arguments: str | os.PathLike[str] | Iterable[str | os.PathLike[str]], revisions: Sequence[str] = ()
) -> tuple[Checkpoint, ...]:
    """Checkpoints of folders, patterns, folders of checkpoints, names and ids, by their steps if all have one."""
    if not isinstance(arguments, str | os.PathLike | Iterable):  # pyright: ignore[reportUnnecessaryIsInstance]
        refuse("checkpoints", "folders of models, a pattern of them, or an id of the hub", arguments)
    names = (
        [os.fspath(arguments)] if isinstance(arguments, str | os.PathLike) else [os.fspath(one) for one in arguments]
    )
    if revisions:
        if len(names) != 1 or Path(names[0]).is_dir():
            raise InputError(
                f"revisions must come with one id of the Hugging Face hub, got {', '.join(names) or 'none'}. Give one."
            )
        checkpoints = [Checkpoint(revision, names[0], revision, _step_of(revision)) for revision in revisions]
    else:
        paths = list(dict.fromkeys(path for name in names for path in _expanded(name)))
        checkpoints = [Checkpoint(_title(path, paths), path, None, _step_of(Path(path).name)) for path in paths]
    if len(checkpoints) < 2:
        told = ", ".join(name if Path(name).is_dir() else f"{name}, which is no folder here" for name in names)
        raise InputError(
            f"checkpoints must be at least 2 different ones, got {len(checkpoints)} ({told}). Give the "
            "folder of a training that keeps some (`statesize train --keep-every`), several folders, or --revisions."
        )
    steps = [checkpoint.step for checkpoint in checkpoints if checkpoint.step is not None]
    return tuple(sorted(checkpoints, key=lambda one: one.step or 0) if len(steps) == len(checkpoints) else checkpoints)


def _expanded(name: str) -> list[str]:
    """The checkpoints that a name stands for; in the folder of a training, "best" and the like have no step."""
    if not Path(name).is_dir() and glob.has_magic(name):
        folders = sorted(path for path in glob.glob(name) if Path(path).is_dir())
        if not folders:
            raise InputError(f"checkpoints must be folders, got the pattern {name}, which fits none.")
        return [path for folder in folders for path in _expanded(folder)]
    inside = [
        str(path)
        for path in (Path(name).iterdir() if Path(name).is_dir() else ())
        if _step_of(path.name) is not None and any((path / config).is_file() for config in _CONFIGS)
    ]
    return sorted(inside) or [name]


def _title(path: str, paths: Sequence[str]) -> str:
    """The last part of a path, or the whole path where others end alike."""
    name = Path(path).name
    return name if sum(Path(other).name == name for other in paths) == 1 else path


def _step_of(name: str) -> int | None:
    found = _STEP.search(name) or _END.search(name)
    return None if found is None else int(found[1])


def find_log(checkpoints: Sequence[Checkpoint]) -> Path | None:
    """The log that lies beside the checkpoints, or in the last of them."""
    folders = [checkpoint.folder for checkpoint in checkpoints if checkpoint.folder is not None]
    paths = [folder.absolute().parent / JSON_LINES for folder in folders[:1]]
    paths += [folder / OF_TRAINER for folder in reversed(folders)]
    return next((path for path in paths if path.is_file()), None)


def read_log(path: Path) -> Log:
    """The content of a log; lines that are no JSON objects with a step are left out, a log of such lines is refused."""
    try:
        content = require_regular(path).read_bytes()
        rows: Iterable[object] = (
            cast("Any", json.loads(content))["log_history"] if path.suffix == ".json" else _of_lines(content)
        )
        mappings = [cast("dict[str, Any]", row) for row in rows if isinstance(row, dict)]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FileError(f"The log {path} cannot be read ({error}).") from error
    log: Log = {}
    for row in (row for row in mappings if isinstance(row.get("step"), int)):
        for name, value in _flat(row):
            if any(word in name for word in _KEPT):
                log.setdefault(name, []).append((int(row["step"]), value))
    if not log:
        raise FileError(f'The log {path} must hold JSON objects with a "step" and a loss or accuracy, got none.')
    return {name: [points[index] for index in evenly_spread(len(points), _MOST_POINTS)] for name, points in log.items()}


def _of_lines(content: bytes) -> Iterator[object]:
    for line in content.decode(errors="replace").splitlines():
        # No JSON is the last line of a run that was killed.
        with suppress(ValueError):
            yield json.loads(line)


def _flat(row: dict[str, Any], above: str = "") -> Iterator[tuple[str, float]]:
    for name, value in row.items():
        if isinstance(value, dict):
            yield from _flat(cast("dict[str, Any]", value), f"{above}{name.replace('_', ' ')} ")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield above + name.replace("_", " "), float(value)
