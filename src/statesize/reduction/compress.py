"""A trained model with smaller states, and what that costs."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from statesize.check import require_count, require_path
from statesize.errors import FileError, InputError
from statesize.io.files import check_writable, os_errors, replace_file, replace_folder
from statesize.measurement.statistics import Interval, finite
from statesize.reduction.hub import reducible
from statesize.reduction.recall import Recall, probe
from statesize.reduction.reducible import Reducible, ReductionRequest
from statesize.reduction.windows import Scores, TokenWindows, ratio_of, score, text_of, three_parts
from statesize.texts.documents import listed
from statesize.texts.token_files import vocabulary_size
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


# Tokens of the calibration text for each number of a head's state: both Gramians must have full rank.
_TOKENS_PER_STATE = 16


@torch.no_grad()
def compress(
    model: nn.Module,
    tokenizer: AnyTokenizer,
    documents: Iterable[str],
    state: float | str = "50%",
    *,
    int8: bool = False,
    fine_tune: int = 0,
    free_basis: bool = False,
    length: int = 256,
) -> Compression:
    """Cuts the states of a trained model, without training, and measures what that costs on held-out documents.

    The documents are parted at random: 40 % show which states carry what outputs read (by Gramians, in one pass), 20 %
    choose between three ways to spread the states over the heads, and the rest tells the cost. Mamba and Mamba-2 of
    transformers keep their own code, which has one size of state for all layers, unless `free_basis` is asked for.

    Args:
        model: With layers of "la", "wla", "gla", "gla-s6", "s6", "deltanet" or "gated-deltanet", or Mamba or Mamba-2 of
            transformers; it is not changed.
        tokenizer: That of the model.
        documents: Text as the model is used for, at least 3 different documents, and 50 for a verdict.
        state: What to keep of the states: a share such as "50%" or 0.5, or the mean size of a head, such as 16.
        int8: Also round the states to int8 after each token; not of transformers' models.
        fine_tune: Steps of training on the calibration text, of the cut model and of the uncut one it is compared with;
            likewise.
        free_basis: Of Mamba-2, keep the best combinations of its numbers instead of the best numbers. It stays nearer
            to the whole model, and the folder is read by statesize only.
        length: Tokens of the sequences that the model reads.

    Returns:
        The smaller model with its cost.

    Raises:
        InputError: `state` is out of range, or there is too little text.
        ModelError: The model has no states that can be cut, or was cut before.

    Example:
        >>> import statesize as ss
        >>> found = ss.compress(*ss.lab.zoo.load("recall-la"), [f"k{i % 12} v{i % 11} k1" for i in range(132)])
        >>> found.state_bytes, found.safe
        ((2048, 1024), None)
    """
    steps, tokens = require_count("fine_tune", fine_tune, least=0), require_count("length", length, least=2)
    whole, request = reducible(model), ReductionRequest(state, int8, steps, free_basis, tokens)
    kept = whole.kept(request)
    whole.check_tokenizer(tokenizer)
    calibration, choice, held_out = split_text(whole, tokenizer, listed("documents", documents), tokens)
    control, cut, method = whole.cut(kept, calibration, choice, request)
    return _compared(control, cut, tokenizer, held_out, method)


def split_text(
    whole: Reducible, tokenizer: AnyTokenizer, documents: Sequence[str], length: int
) -> tuple[TokenWindows, TokenWindows, TokenWindows]:
    """Windows for the Gramians, for the choice of sizes, and held out; refuse a text too short for the first."""
    parts = three_parts(documents, tokenizer, min(length, whole.positions or length))
    size, largest = vocabulary_size(whole.model), max(int(part.inputs.max()) for part in parts)
    if size is not None and largest >= size:
        raise InputError(
            f"tokenizer must be that of the model, which has {size:,} tokens, got one that gives the id {largest:,}. "
            "Give the model's own."
        )
    tokens, least = int(text_of(parts[0].targets).numel()), _TOKENS_PER_STATE * whole.state_size
    if tokens < least:
        raise InputError(
            f"text must have at least {least} tokens among the 40 % of its documents for the Gramians, got {tokens}. "
            "Give more text."
        )
    return parts


def _compared(
    control: nn.Module, cut: nn.Module, tokenizer: AnyTokenizer, windows: TokenWindows, method: str
) -> Compression:
    """What a cut costs, against the model that was not cut."""
    whole, smaller = reducible(control), reducible(cut)
    rounded = whole.rounded()
    before, after = (score(one, windows.inputs, windows.targets) for one in (control, cut))
    alone = None if rounded is None else score(rounded, windows.inputs, windows.targets)
    return Compression(
        model=cut,
        tokenizer=tokenizer,
        before=ratio_of(before.bits(windows), windows.sizes),
        after=ratio_of(after.bits(windows), windows.sizes),
        difference=extra_bits(after, before, windows),
        recall=probe(control, cut, windows),
        documents=len(windows.sizes),
        state_bytes=(whole.state_bytes, smaller.state_bytes),
        int8_bytes=None if rounded is None else reducible(rounded).state_bytes,
        int8_difference=None if alone is None else extra_bits(alone, before, windows),
        method=method,
        sizes=smaller.sizes,
    )


def extra_bits(after: Scores, before: Scores, windows: TokenWindows) -> Interval:
    """The paired difference of two models in bits a byte."""
    return ratio_of(after.bits(windows) - before.bits(windows), windows.sizes)
