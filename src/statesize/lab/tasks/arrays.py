"""A task of ready-made arrays, as other packages generate them, in memory or in a file."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from statesize.check import require_count, require_kind, require_path, shape
from statesize.errors import FileError, InputError
from statesize.io.files import check_header, os_errors, read_limited
from statesize.lab.tasks.task import IGNORED, Guessable

_HELD_OUT_SHARE = 10
_MOST = 2**32
"""Bytes of a file of arrays that is read."""


@dataclass(frozen=True, eq=False)
class ArrayTask(Guessable):
    """Sequences that are there already; a batch is drawn from them with replacement, the last ones are held out.

    Attributes:
        inputs: (S, L) int64.
        targets: (S, L) int64, `IGNORED` where nothing is scored.
        held_out_sequences: How many are held out.
        file: Where they were read from; empty where they were not.
        sha256: Digest of that file.
    """

    inputs: Tensor
    targets: Tensor
    held_out_sequences: int
    file: str = ""
    sha256: str = ""

    @property
    def vocabulary_size(self) -> int:
        """One more than the largest id of inputs and targets."""
        return int(torch.maximum(self.inputs.max(), self.targets.max())) + 1

    @property
    def training_sequences(self) -> int:
        """How many sequences batches are drawn from; the others are held out."""
        return len(self.inputs) - self.held_out_sequences

    @property
    def length(self) -> int:
        """Tokens of a sequence."""
        return self.inputs.shape[1]

    @property
    def items(self) -> int:
        """Most answers of a sequence."""
        return int((self.targets != IGNORED).sum(1).max())

    @property
    def chance(self) -> float:
        """Accuracy, on the held-out sequences, of answering each with the answer that stands in it most often."""
        return self._chance

    @cached_property
    def _chance(self) -> float:
        return counting_accuracy(self.inputs[self.training_sequences :], self.targets[self.training_sequences :])

    def sample(self, batch_size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """A random batch of the sequences to train on.

        Args:
            batch_size: Number of sequences.
            generator: A CPU generator, from which alone the batch is drawn.

        Returns:
            Inputs and targets, (batch_size, L).
        """
        chosen = torch.randint(self.training_sequences, (require_count("batch_size", batch_size),), generator=generator)
        return self.inputs[chosen], self.targets[chosen]

    def held_out(self, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """The sequences that are held out, in their order.

        Args:
            batch_size: Number of sequences in a batch; the last may have fewer.

        Yields:
            Inputs and targets.
        """
        size, rest = require_count("batch_size", batch_size), slice(self.training_sequences, None)
        yield from zip(torch.split(self.inputs[rest], size), torch.split(self.targets[rest], size), strict=True)


def from_arrays(inputs: Tensor, targets: Tensor, held_out_sequences: int | None = None) -> ArrayTask:
    """A task of ready-made sequences, such as those that zoology and mad-lab generate.

    Args:
        inputs: Token ids, (S, L) int64, of at least 2 sequences.
        targets: What to answer at each position, (S, L) int64; −100 where nothing is scored.
        held_out_sequences: How many of the last sequences are held out; None for a tenth, one at least.

    Returns:
        The task, to train and evaluate on.

    Raises:
        InputError: Another dtype or shape, ids below 0, no sequence to train on, no target in those that are held
            out, or targets that are the tokens at the same positions.

    Example:
        >>> inputs = torch.tensor([[1, 2, 1, 0], [2, 3, 2, 0]])
        >>> task = from_arrays(inputs, torch.tensor([[-100, -100, 2, -100], [-100, -100, 3, -100]]))
        >>> task.vocabulary_size, task.training_sequences
        (4, 1)
    """
    for name, array in (("inputs", inputs), ("targets", targets)):
        require_kind(name, array, Tensor, "a tensor of token ids. Make one with torch.from_numpy")
        if array.dtype != torch.int64:
            raise InputError(f"{name} must be of dtype torch.int64, got {array.dtype}. Convert it with .long().")
        if array.ndim != 2 or len(array) < 2 or not array.shape[1] or array.shape != inputs.shape:
            raise InputError(
                f"{name} must have shape (S, L) with S of at least 2, that of inputs, got {shape(array)} for inputs "
                f"{shape(inputs)}."
            )
    scored = targets != IGNORED
    for name, ids in (("inputs", inputs), ("targets", targets[scored])):
        if ids.numel() and int(ids.min()) < 0:
            raise InputError(f"{name} must be token ids of at least 0, or {IGNORED} in targets, got {int(ids.min())}.")
    held_out = max(len(inputs) // _HELD_OUT_SHARE, 1) if held_out_sequences is None else held_out_sequences
    if require_count("held_out_sequences", held_out) >= len(inputs):
        raise InputError(f"held_out_sequences must be below {len(inputs)}, the sequences of inputs, got {held_out}.")
    task = ArrayTask(inputs.cpu(), targets.cpu(), held_out)
    if not bool(scored[-held_out:].any()):
        raise InputError(f"targets must score something of the {held_out} sequences held out, got {IGNORED} only.")
    if torch.equal(inputs[scored], targets[scored]):
        raise InputError(
            "targets must not be the tokens at the same positions, which need no memory. Shift them by one, so that "
            "the target is the answer to what stands up to there."
        )
    return task


def read_arrays(file: str | os.PathLike[str], held_out_sequences: int | None = None, sha256: str = "") -> ArrayTask:
    """A task of sequences in a file, which grids name as the task "arrays".

    Args:
        file: A safetensors file with `inputs` and `targets`, as `from_arrays` takes them.
        held_out_sequences: How many of the last sequences are held out; None for a tenth, one at least.
        sha256: Digest of the file, where it must be a certain one; empty for any.

    Returns:
        The task.

    Raises:
        FileError: The file cannot be read, or is another one.
        InputError: It holds other arrays than `from_arrays` takes.
    """
    path = require_path("file", file)
    with os_errors(f"file must be one that can be read, got {path}"):
        check_header(path)
        content = read_limited(path, _MOST)
    digest = hashlib.sha256(content).hexdigest()
    if sha256 not in ("", digest):
        raise FileError(f"{path} must have the SHA-256 {sha256}, got {digest}. It has changed since it was named.")
    try:
        arrays = safetensors.torch.load(content)
    except (safetensors.SafetensorError, ValueError) as error:
        raise FileError(f"{path} must be a safetensors file, got one that cannot be read: {error}.") from error
    if arrays.keys() != {"inputs", "targets"}:
        raise InputError(f"{path} must hold inputs and targets, got {', '.join(sorted(arrays)) or 'nothing'}.")
    task = from_arrays(arrays["inputs"], arrays["targets"], held_out_sequences)
    return replace(task, file=str(path), sha256=digest)


def counting_accuracy(inputs: Tensor, targets: Tensor) -> float:
    """Accuracy of answering each sequence (S, L) with what stands in it most often, of all that is ever an answer."""
    answers = torch.bincount(targets[targets != IGNORED], minlength=int(inputs.max()) + 1)
    right = 0
    for tokens, wanted in zip(inputs, targets, strict=True):
        counts = torch.bincount(tokens, minlength=len(answers)) * (answers > 0)
        # Where no answer stands in the input, as with facts that are learnt: the most frequent one of all.
        guess = int((counts if bool(counts.any()) else answers).argmax())
        right += int((wanted == guess).sum())
    return right / int(answers.sum())
