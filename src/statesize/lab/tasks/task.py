"""The task: what a training loop needs to know of the data that it trains on."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Protocol

import torch
from torch import Tensor

IGNORED = -100
"""Target at positions that are not scored, the value that torch's cross-entropy ignores."""


class Task(Protocol):
    """Next-token data for training and evaluation.

    A batch is `(input_ids, targets)`, both (S, L) int64 on the CPU: the logits at position t of sequence s are
    scored against `targets[s, t]`, except where that is `IGNORED` (-100).
    """

    @property
    def vocabulary_size(self) -> int:
        """Number of token ids; every id is in 0 … vocabulary_size − 1."""
        ...

    def sample(self, batch_size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """A random training batch, determined by the state of `generator`."""
        ...

    def held_out(self, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """The evaluation batches, the same ones in the same order at every call; the last may be smaller."""
        ...

    def report(self, mean_nats: float, accuracy: float) -> dict[str, float]:
        """Figures of one evaluation, by name, from the mean loss in nats and the accuracy over scored targets."""
        ...


class StudyTask(Task, Protocol):
    """What grids need of a task, and every registered one has."""

    @property
    def length(self) -> int:
        """Tokens of a sequence."""
        ...

    @property
    def items(self) -> int:
        """How many items a sequence has to store at once, the kv of a study."""
        ...

    @property
    def chance(self) -> float:
        """Accuracy of guessing."""
        ...

    @property
    def held_out_sequences(self) -> int:
        """Sequences to evaluate on."""
        ...


class Guessable(ABC):
    """A task whose evaluation stands beside the accuracy of a guess."""

    @property
    @abstractmethod
    def chance(self) -> float:
        """Accuracy of the best guess by one who knows which answers a sequence holds, but not where each belongs."""

    def report(self, mean_nats: float, accuracy: float) -> dict[str, float]:
        """Figures of an evaluation over the held-out sequences.

        Args:
            mean_nats: mean over scored targets of −ln p(target).
            accuracy: share of scored targets that are the most probable token.

        Returns:
            `loss` (nats per target), `accuracy` and `chance`.
        """
        return {"loss": mean_nats, "accuracy": accuracy, "chance": self.chance}
