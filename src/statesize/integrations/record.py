"""Readings of a training in a file, where no tool is there to log them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from statesize.files import os_errors

RECORD = "statesize.jsonl"
"""The file's name, in the folder of the training."""


def append_reading(folder: Path, step: int, values: Mapping[str, float]) -> None:
    """Add a line of JSON with the step to the record in the folder of a training."""
    path = folder / RECORD
    with os_errors(f"{path} cannot be written", "Give a folder that can."):
        folder.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step} | dict(values)) + "\n")
