"""Multi-query associative recall with the draws of Zoology's own generator, so that results stand beside its curves.

Source: Arora et al., "Zoology: Measuring and improving recall in efficient language models", 2023, appendix E, and the
generator `multiquery_ar` of its repository.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from statesize.check import require_count, require_kind, require_real
from statesize.errors import InputError
from statesize.lab.tasks.synthetic import SyntheticTask
from statesize.lab.tasks.task import IGNORED


@dataclass(frozen=True)
class ZoologyMQAR(SyntheticTask):
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
        require_count("pairs", self.pairs, 2)
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

    @property
    def items(self) -> int:
        """The number of pairs."""
        return self.pairs

    @property
    def chance(self) -> float:
        """1 / P, that of one who knows the values, but neither their keys nor where early pairs are queried."""
        return 1 / self.pairs

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
