"""Multi-query associative recall, and the same with the draws of Zoology's own generator: which value had this key?

Source: Arora et al., "Zoology: Measuring and improving recall in efficient language models", 2023, section 3 and
appendix E, and the generator `multiquery_ar` of its repository.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import Tensor

from statesize.check import require_kind, require_real
from statesize.errors import InputError
from statesize.lab.tasks.synthetic import PairTask, distinct
from statesize.lab.tasks.task import IGNORED


@dataclass(frozen=True)
class MQAR(PairTask):
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
        gap_power: 1 for query positions that are drawn uniformly; nearer to 0, most are close to the pairs.
        held_out_sequences: sequences to evaluate on.
        held_out_seed: which ones.

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

    @classmethod
    def zoology(cls, pairs: int, length: int, vocabulary_size: int = 8192) -> Self:
        """The setting of Zoology: each pair is queried once, and gap_power is 0.01.

        There, queries stand on every other position only, and fillers may be keys too: see `ZoologyMQAR`.

        Args:
            pairs: key-value pairs, P.
            length: tokens of a sequence, at least 3P.
            vocabulary_size: number of token ids.

        Returns:
            The task.

        Raises:
            InputError: the queries do not fit in the length.
        """
        if length < 3 * pairs:
            raise InputError(f"length must be at least {3 * pairs}, for {pairs} pairs and a query each, got {length}.")
        return cls(pairs, length, vocabulary_size, query_share=pairs / (length - 2 * pairs), gap_power=0.01)

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
        self._check_batch(batch_size, generator)
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


@dataclass(frozen=True)
class ZoologyMQAR(PairTask):
    """Zoology's multi-query associative recall: a batch is what its generator makes of the same random numbers.

    Ids 1 … V//2 − 1 are keys and V//2 … V − 1 values. P pairs come first; each is queried once, at every other position
    after them, whose number g = 1, 2, … has a weight g^(gap_power − 1). The first pair draws its position first, so
    that early pairs tend to be queried early: unlike in `MQAR`, the position alone says something about the answer. All
    other positions hold id 0, or any id of the vocabulary if `random_fillers`.

    Attributes:
        pairs: key-value pairs, P, at least 2.
        length: tokens of a sequence, L, even and at least 4P.
        vocabulary_size: number of token ids, V, more than L.
        gap_power: `power_a` there; 1 is uniform.
        random_fillers: `random_non_queries` there.
        held_out_sequences: sequences to evaluate on.
        held_out_seed: which ones.

    Raises:
        InputError: a number is out of range.

    Examples:
        >>> task = ZoologyMQAR(pairs=2, length=8, vocabulary_size=12, random_fillers=False)
        >>> inputs, targets = task.sample(1, torch.Generator().manual_seed(0))
        >>> inputs.shape, (targets != IGNORED).sum().item(), task.chance
        (torch.Size([1, 8]), 2, 0.5)
    """

    pairs: int = 8
    length: int = 64
    vocabulary_size: int = 8192
    gap_power: float = 0.01
    random_fillers: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        require_kind("random_fillers", self.random_fillers, bool, "True or False")
        if self.length % 2 or self.length < 4 * self.pairs:
            raise InputError(
                f"length must be even and at least 4 pairs, {4 * self.pairs}, got {self.length}. Give a longer one."
            )
        if self.vocabulary_size <= self.length:
            raise InputError(
                f"vocabulary_size must be more than length, {self.length}, got {self.vocabulary_size}. Give more."
            )
        require_real("gap_power", self.gap_power, above=0)

    def sample(self, batch_size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """A random batch: inputs and targets, (S, L) int64 each."""
        self._check_batch(batch_size, generator)
        seed = int(torch.randint(2**32, (), generator=generator))
        return self.arrays(batch_size, seed, generator)

    def arrays(self, sequences: int, seed: int, fillers: torch.Generator) -> tuple[Tensor, Tensor]:
        """What Zoology's generator returns for a seed of NumPy and a state of torch's generator.

        Args:
            sequences: number of sequences, S.
            seed: of NumPy's legacy generator, from which pairs and positions are drawn.
            fillers: the generator of the fillers.

        Returns:
            Inputs and targets, (S, L) int64.
        """
        legacy = np.random.RandomState(seed)
        first_value, start = self.vocabulary_size // 2, 2 * self.pairs
        weights = np.arange(1, (self.length - start) // 2 + 1) ** (self.gap_power - 1)
        share = self.gap_power * weights / (self.gap_power * weights).sum()

        def drawn(choices: np.ndarray, p: np.ndarray | None = None) -> Tensor:
            rows = [legacy.choice(choices, size=self.pairs, replace=False, p=p) for _ in range(sequences)]
            return torch.from_numpy(np.stack(rows)).to(torch.int64)

        keys = drawn(np.arange(1, first_value))
        values = drawn(np.arange(first_value, self.vocabulary_size))
        columns = start + 2 * drawn(np.arange(len(share)), share)
        inputs = torch.zeros(sequences, self.length, dtype=torch.int64)
        inputs[:, 0:start:2], inputs[:, 1:start:2] = keys, values
        inputs.scatter_(1, columns, keys)
        targets = torch.full_like(inputs, IGNORED).scatter_(1, columns, values)
        if self.random_fillers:
            empty = inputs == 0
            inputs[empty] = torch.randint(self.vocabulary_size, inputs.shape, generator=fillers)[empty]
        return inputs, targets


def race(log_weights: Tensor, draws: int, rows: int, generator: torch.Generator) -> Tensor:
    """Different numbers, ascending, drawn one after the other in proportion to weights, (rows, draws) int64."""
    # The `draws` first arrivals of independent exponential waiting times with these rates (Efraimidis & Spirakis,
    # "Weighted random sampling with a reservoir", 2006).
    waits = torch.empty(rows, len(log_weights), dtype=torch.float64).exponential_(generator=generator)
    return (waits.log() - log_weights).topk(draws, largest=False).indices.sort().values
