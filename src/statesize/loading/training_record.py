"""How a model was trained, where that is written beside its weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from statesize.files import parse_json, read_limited
from statesize.lab import zoo


def training_record(name: str) -> dict[str, Any]:
    """The training.json of a bundled model or of a folder; empty where there is none that can be read."""
    if name in zoo.names() + zoo.recall_names():
        return zoo.record(name)
    try:
        record = parse_json(read_limited(Path(name) / "training.json"))
    except (OSError, ValueError):
        return {}
    return cast("dict[str, Any]", record) if isinstance(record, dict) else {}
