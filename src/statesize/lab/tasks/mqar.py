"""Multi-query associative recall: which value had this key?

Source: Arora et al., "Zoology: Measuring and improving recall in efficient language models", 2023, section 3 and
appendix E, with a query at every position after the pairs.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from statesize.check import refuse
from statesize.lab.tasks.base import IGNORED, SyntheticTask, count, distinct, task


@task("mqar")
@dataclass(frozen=True)
class MQAR(SyntheticTask):
    """Multi-query associative recall: key-value pairs first, then queries, each a key whose value is the target.

    Token ids 0 … V//2 − 1 are keys and V//2 … V − 1 are values. A sequence is

        k₁ v₁ k₂ v₂ … k_P v_P   then L − 2P queries

    with keys that are all different and values that are all different. A query is a key among k₁ … k_P, whose target is
    its value; the values are not put into the input. Every run of P queries repeats each pair once, in random order.
    The pairs have no target.

    Attributes:
        pairs: key-value pairs, P, at least 2.
        length: tokens of a sequence, L, more than 2P.
        vocabulary_size: number of token ids, V, at least 2P.

    Examples:
        >>> task = MQAR(pairs=2, length=8, vocabulary_size=8)
        >>> inputs, targets = task.sample(1, torch.Generator().manual_seed(0))
        >>> inputs.shape, (targets != IGNORED).sum().item(), task.chance
        (torch.Size([1, 8]), 4, 0.5)
    """

    pairs: int = count(6, least=2)
    length: int = 64
    vocabulary_size: int = 64

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.pairs > self.keys:
            refuse("pairs", f"at most {self.keys}, the keys of a vocabulary_size of {self.vocabulary_size}", self.pairs)
        if self.length <= 2 * self.pairs:
            refuse("length", f"at least {2 * self.pairs + 1}, for {self.pairs} pairs and a query", self.length)

    @property
    def items(self) -> int:
        """The number of pairs."""
        return self.pairs

    @property
    def chance(self) -> float:
        """1 / P, as the values that a sequence holds are all different."""
        return 1 / self.pairs

    @property
    def keys(self) -> int:
        """Number of token ids that are keys; the ids from there on are values."""
        return self.vocabulary_size // 2

    def sample(self, batch_size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """A random batch: inputs and targets, (S, L) int64 each."""
        start, queries = 2 * self.pairs, self.length - 2 * self.pairs
        keys = distinct(self.keys, self.pairs, batch_size, generator)
        values = self.keys + distinct(self.vocabulary_size - self.keys, self.pairs, batch_size, generator)
        rounds = -(-queries // self.pairs)
        order = distinct(self.pairs, self.pairs, batch_size * rounds, generator).view(batch_size, -1)[:, :queries]
        inputs = torch.empty(batch_size, self.length, dtype=torch.int64)
        targets = torch.full_like(inputs, IGNORED)
        inputs[:, 0:start:2], inputs[:, 1:start:2] = keys, values
        inputs[:, start:], targets[:, start:] = keys.gather(1, order), values.gather(1, order)
        return inputs, targets
