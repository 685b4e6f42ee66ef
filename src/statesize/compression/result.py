"""What `statesize.compress` made, and what it costs."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from statesize.check import require_path
from statesize.compression.kinds import reducible
from statesize.compression.scoring.recall import Recall
from statesize.errors import FileError
from statesize.files import check_writable, os_errors, replace_file, replace_folder
from statesize.interval import Interval, finite
from statesize.texts.tokens import AnyTokenizer

LOST_BITS = 0.01
"""Bits a byte that a cut which is called safe costs at most, by the upper end of the interval."""

_FEWEST_DOCUMENTS = 20


@dataclass(frozen=True, eq=False)
class Compression:
    """A model with smaller states, and its cost on held-out documents.

    Attributes:
        model: The smaller model.
        tokenizer: That of the model.
        before: Bits a byte of the uncut model, which was fine-tuned as much as the smaller one.
        after: Bits a byte of the smaller model.
        difference: Their paired difference.
        recall: What the probe of recall found, by kind.
        documents: How many documents are held out.
        state_bytes: What the states hold of a sequence before and after.
        int8_bytes: What they would hold if the uncut model's were rounded to int8.
        int8_difference: What that alone would cost, in bits a byte; None where the mixer's states are not rounded.
        method: How states were cut.
        sizes: What each head keeps, a tuple a layer; one number a layer of a model of transformers.
    """

    model: nn.Module
    tokenizer: AnyTokenizer
    before: Interval
    after: Interval
    difference: Interval
    recall: Mapping[str, Recall]
    documents: int
    state_bytes: tuple[int, int]
    int8_bytes: int | None
    int8_difference: Interval | None
    method: str
    sizes: tuple[tuple[int, ...], ...]

    @property
    def safe(self) -> bool | None:
        """Whether the upper ends of all intervals are small; None where too little is known.

        True if at most 0.01 bits a byte and 0.02 of the recall are lost, by every kind of recall that the uncut model
        has. None with fewer than 20 held-out documents, or where it recalls nothing.
        """
        seen = [recall for recall in self.recall.values() if recall.seen]
        if self.documents < _FEWEST_DOCUMENTS or not seen:
            return None
        return self.difference.high <= LOST_BITS and all(recall.kept for recall in seen)

    def to_dict(self, output: str | os.PathLike[str] | None = None) -> dict[str, Any]:
        """The figures as JSON values.

        Args:
            output: The folder that the model was saved to.

        Returns:
            What `statesize compress --json` prints.
        """
        return {
            "loss_before": self.before.value,
            "loss_after": self.after.value,
            "difference": self.difference.value,
            "interval": self.difference.ends,
            "state_bytes_before": self.state_bytes[0],
            "state_bytes_after": self.state_bytes[1],
            "recall": {kind: _recall(found) for kind, found in self.recall.items()},
            "safe": self.safe,
            "method": self.method,
            "output": None if output is None else os.fspath(output),
        }

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Writes the model with its tokenizer and figures; `load` and all commands read it, and transformers its own.

        Args:
            folder: New or empty.

        Raises:
            FileError: The folder is in use, or cannot be written.
        """
        folder = check_output(folder)
        with os_errors(f"cannot write {folder}", "Give a folder that can be written"):
            folder.parent.mkdir(parents=True, exist_ok=True)
            replace_folder(folder, self._write)

    def _write(self, folder: Path) -> None:
        reducible(self.model).save(folder, self.tokenizer)
        replace_file(folder / "compression.json", (json.dumps(self.to_dict(), indent=1) + "\n").encode())


def check_output(folder: str | os.PathLike[str]) -> Path:
    """Refuse a folder that holds anything, or cannot be written."""
    path = require_path("output", folder)
    if os.path.lexists(path) and not path.is_dir():
        raise FileError(f"output must be a folder, got {path}, which is a file. Give a new folder.")
    if path.is_dir() and any(path.iterdir()):
        raise FileError(f"output must be a new or empty folder, got {path}, which is in use. Give another.")
    check_writable(path)
    return path


def _recall(found: Recall) -> dict[str, Any]:
    values = {"before": found.before.value, "after": found.after.value, "lost": found.lost.value}
    return {name: finite(value) for name, value in values.items()} | {
        "interval": found.lost.ends,
        "answers": found.answers,
        "seen": found.seen,
    }
