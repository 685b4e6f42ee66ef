"""A task of ready-made arrays, as other packages generate them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from statesize.check import require_count, require_kind, shape
from statesize.errors import InputError
from statesize.tasks.task import IGNORED

_HELD_OUT_SHARE = 10


@dataclass(frozen=True, eq=False)
class ArrayTask:
    """Sequences that are there already; a batch is drawn from them with replacement, the last tenth is held out.

    Attributes:
        inputs: (S, L) int64.
        targets: (S, L) int64, `IGNORED` where nothing is asked.
    """

    inputs: Tensor
    targets: Tensor

    @property
    def vocabulary_size(self) -> int:
        """One more than the largest id of inputs and targets."""
        return int(torch.maximum(self.inputs.max(), self.targets.max())) + 1

    @property
    def training_sequences(self) -> int:
        """How many sequences batches are drawn from; the others are held out."""
        return len(self.inputs) - max(len(self.inputs) // _HELD_OUT_SHARE, 1)

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
        """The last tenth of the sequences, one at least, in their order.

        Args:
            batch_size: Number of sequences in a batch; the last may have fewer.

        Yields:
            Inputs and targets.
        """
        size, kept = require_count("batch_size", batch_size), slice(self.training_sequences, None)
        yield from zip(torch.split(self.inputs[kept], size), torch.split(self.targets[kept], size), strict=True)

    def report(self, mean_nats: float, accuracy: float) -> dict[str, float]:
        """Figures of an evaluation over the held-out sequences.

        Args:
            mean_nats: Mean over scored targets of −ln p(target).
            accuracy: Share of scored targets that are the most probable token.

        Returns:
            `loss` (nats per target) and `accuracy`.
        """
        return {"loss": mean_nats, "accuracy": accuracy}


def from_arrays(inputs: Tensor, targets: Tensor) -> ArrayTask:
    """A task of ready-made sequences, such as those that zoology and mad-lab generate.

    Args:
        inputs: Token ids, (S, L) int64, of at least 2 sequences.
        targets: What to answer at each position, (S, L) int64; −100 where nothing is asked.

    Returns:
        The task, to train and evaluate on; the last tenth of the sequences is held out.

    Raises:
        InputError: Another dtype or shape, ids below 0, no target in the sequences that are held out, or targets that
            are the tokens at the same positions.

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
    asked = targets != IGNORED
    for name, ids in (("inputs", inputs), ("targets", targets[asked])):
        if ids.numel() and int(ids.min()) < 0:
            raise InputError(f"{name} must be token ids of at least 0, or {IGNORED} in targets, got {int(ids.min())}.")
    task = ArrayTask(inputs.cpu(), targets.cpu())
    if not bool(asked[task.training_sequences :].any()):
        raise InputError(f"targets must ask something of the last tenth of the sequences, got {IGNORED} only.")
    if torch.equal(inputs[asked], targets[asked]):
        raise InputError(
            "targets must not be the tokens at the same positions, which need no memory. Shift them by one, so that "
            "the target is the answer to what stands up to there."
        )
    return task
