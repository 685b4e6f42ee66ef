"""Multi-query associative recall: which value had this key?

Source: Arora et al., "Zoology: Measuring and improving recall in efficient language models", 2023, section 3 and
appendix E, and the generator `multiquery_ar` of its repository.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from statesize.check import require_count, require_real
from statesize.errors import InputError
from statesize.lab.tasks.base import IGNORED, SyntheticTask, distinct, task


@task("mqar")
@dataclass(frozen=True)
class MQAR(SyntheticTask):
    """Multi-query associative recall: key-value pairs first, then queries, each a key whose value is the target.

    Token ids 0 … V//2 − 1 are keys and V//2 … V − 1 are values. A sequence is

        k₁ v₁ k₂ v₂ … k_P v_P   then L − 2P positions, each a query or a filler

    with keys that are all different and values that are all different. round(query_share · (L − 2P)) of the
    positions after the pairs, one at least, are queries: a key among k₁ … k_P, whose target is its value; the values
    are not put into the input. Every run of P queries repeats each pair once, in random order. The other positions hold
    fillers, random values, so that a key behind the pairs is always a query; they and the pairs have no target.

    Which positions are queries is drawn without replacement, one after the other, position g = 1, 2, … after the pairs
    with a probability proportional to g^(gap_power − 1), the power law of Zoology (`power_a` there). The order of the
    pairs is independent of it, so that a position alone says nothing about the answer.

    Attributes:
        pairs: key-value pairs, P, at least 2.
        length: tokens of a sequence, L, more than 2P.
        vocabulary_size: number of token ids, V, at least 2P.
        query_share: share of the positions after the pairs that are queries, in (0, 1].
        gap_power: 1 for query positions that are drawn uniformly; nearer to 0, most are close to the pairs. 0.01 in
            Zoology.

    Raises:
        InputError: a number is out of range, or the pairs do not fit in the vocabulary or the length.

    Examples:
        >>> task = MQAR(pairs=2, length=8, vocabulary_size=8)
        >>> inputs, targets = task.sample(1, torch.Generator().manual_seed(0))
        >>> inputs.shape, (targets != IGNORED).sum().item(), task.chance
        (torch.Size([1, 8]), 4, 0.5)
    """

    pairs: int = 6
    length: int = 64
    vocabulary_size: int = 64
    query_share: float = 1.0
    gap_power: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require_count("pairs", self.pairs, 2)
        if self.pairs > self.keys:
            raise InputError(
                f"pairs must be at most {self.keys}, the keys of a vocabulary_size of {self.vocabulary_size}, got "
                f"{self.pairs}. Give fewer, or a vocabulary_size of at least {2 * self.pairs}."
            )
        if self.length <= 2 * self.pairs:
            raise InputError(
                f"length must be at least {2 * self.pairs + 1}, for {self.pairs} pairs and a query, got {self.length}. "
                "Give a longer one, or fewer pairs."
            )
        require_real("query_share", self.query_share, above=0, most=1)

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

    @property
    def queries(self) -> int:
        """Number of queries of a sequence."""
        return max(round(self.query_share * (self.length - 2 * self.pairs)), 1)

    def sample(self, batch_size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """A random batch: inputs and targets, (S, L) int64 each."""
        start, gaps = 2 * self.pairs, self.length - 2 * self.pairs
        keys = distinct(self.keys, self.pairs, batch_size, generator)
        values = self.keys + distinct(self.vocabulary_size - self.keys, self.pairs, batch_size, generator)
        rounds = -(-self.queries // self.pairs)
        order = distinct(self.pairs, self.pairs, batch_size * rounds, generator).view(batch_size, -1)
        order = order[:, : self.queries]
        queries, answers = keys.gather(1, order), values.gather(1, order)
        inputs = torch.empty(batch_size, self.length, dtype=torch.int64)
        targets = torch.full_like(inputs, IGNORED)
        inputs[:, 0:start:2], inputs[:, 1:start:2] = keys, values
        if self.queries == gaps:
            inputs[:, start:], targets[:, start:] = queries, answers
            return inputs, targets
        inputs[:, start:].random_(self.keys, self.vocabulary_size, generator=generator)
        log_weights = (self.gap_power - 1) * torch.arange(1, gaps + 1, dtype=torch.float64).log()
        positions = start + race(log_weights, self.queries, batch_size, generator)
        return inputs.scatter_(1, positions, queries), targets.scatter_(1, positions, answers)


def race(log_weights: Tensor, draws: int, rows: int, generator: torch.Generator) -> Tensor:
    """Different numbers, ascending, drawn one after the other in proportion to weights, (rows, draws) int64."""
    # The `draws` first arrivals of independent exponential waiting times with these rates (Efraimidis & Spirakis,
    # "Weighted random sampling with a reservoir", 2006).
    waits = torch.empty(rows, len(log_weights), dtype=torch.float64).exponential_(generator=generator)
    return (waits.log() - log_weights).topk(draws, largest=False).indices.sort().values
