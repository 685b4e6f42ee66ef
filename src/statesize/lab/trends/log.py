"""The log of a training: loss and accuracy by step, from JSON lines or the trainer_state.json of transformers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeAlias, cast

from statesize.errors import FileError
from statesize.io.files import parse_json, require_regular
from statesize.lab.trends.checkpoints import Checkpoint
from statesize.measurement.chart import evenly_spread

Log: TypeAlias = dict[str, list[tuple[int, float]]]
"""Steps and values of each quantity."""

JSON_LINES, OF_TRAINER = "log.jsonl", "trainer_state.json"
# Quantities that are kept are those with one of these words in their names.
_KEPT = ("loss", "accuracy", "perplexity")
_MOST_POINTS = 500


def find_log(checkpoints: Sequence[Checkpoint]) -> Path | None:
    """The log that lies beside the checkpoints, or in the last of them."""
    folders = [checkpoint.folder for checkpoint in checkpoints if checkpoint.folder is not None]
    paths = [folder.absolute().parent / JSON_LINES for folder in folders[:1]]
    paths += [folder / OF_TRAINER for folder in reversed(folders)]
    return next((file for file in paths if file.is_file()), None)


def read_log(path: Path) -> Log:
    """The content of a log; lines that are no JSON objects with a step are left out, a log of such lines is refused."""
    try:
        content = require_regular(path).read_bytes()
        rows = list(_of_trainer(content) if path.suffix == ".json" else _of_lines(content))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FileError(f"The log {path} cannot be read ({error}).") from error
    log: Log = {}
    for row in rows:
        for name, value in _flat(row):
            if any(word in name for word in _KEPT):
                log.setdefault(name, []).append((int(row["step"]), value))
    if not log:
        raise FileError(f'The log {path} must hold JSON objects with a "step" and a loss or accuracy, got none.')
    return {name: [points[file] for file in evenly_spread(len(points), _MOST_POINTS)] for name, points in log.items()}


def _of_trainer(content: bytes) -> Iterator[dict[str, Any]]:
    rows: list[object] = cast("Any", parse_json(content))["log_history"]
    yield from (cast("dict[str, Any]", row) for row in rows if _tells_step(row))


def _of_lines(content: bytes) -> Iterator[dict[str, Any]]:
    for line in content.decode(errors="replace").splitlines():
        try:
            row = parse_json(line)
        except ValueError:
            # Such as the last line of a run that was killed.
            continue
        if _tells_step(row):
            yield cast("dict[str, Any]", row)


def _tells_step(row: object) -> bool:
    return isinstance(row, dict) and isinstance(cast("dict[str, Any]", row).get("step"), int)


def _flat(row: dict[str, Any], above: str = "") -> Iterator[tuple[str, float]]:
    for name, value in row.items():
        if isinstance(value, dict):
            yield from _flat(cast("dict[str, Any]", value), f"{above}{name.replace('_', ' ')} ")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield above + name.replace("_", " "), float(value)
