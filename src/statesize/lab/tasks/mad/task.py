"""What the tasks of mad-lab have in common: a fixed set of sequences, drawn one after the other from NumPy."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from statesize.check import require_count, require_real
from statesize.errors import InputError
from statesize.lab.tasks.chance import counting_accuracy
from statesize.lab.tasks.synthetic import SyntheticTask

Sequence: TypeAlias = tuple[list[int], list[int]]
"""Inputs and targets of one sequence."""


class Draws:
    """Both generators of NumPy that mad-lab draws from, seeded as it seeds them."""

    def __init__(self, seed: int) -> None:
        self.modern = np.random.default_rng(seed)
        self.legacy = np.random.RandomState(seed)

    def number(self, below: int) -> int:
        """One of 0 … below − 1."""
        return int(self.modern.integers(below))

    def numbers(self, below: int, count: int) -> list[int]:
        """Several of 0 … below − 1."""
        return self.modern.integers(below, size=count).tolist()

    def order(self, count: int) -> list[int]:
        """The numbers 0 … count − 1, shuffled."""
        numbers = np.arange(count)
        self.modern.shuffle(numbers)
        return numbers.tolist()

    def happens(self, share: float) -> bool:
        """True in this share of the draws."""
        return bool(share) and bool(self.modern.random() < share)


@dataclass(frozen=True, kw_only=True)
class MADTask(SyntheticTask):
    """A task of mad-lab: `training_sequences` sequences are drawn once, and batches from them, with replacement.

    A seed gives the sequences to train on first and those to evaluate on after them, as in mad-lab, number for number.

    Attributes:
        training_sequences: sequences to train on, `num_train_examples` there.
        held_out_sequences: sequences to evaluate on, `num_test_examples` there.
        held_out_seed: of all sequences, `seed` there.
    """

    training_sequences: int = 12_800
    held_out_sequences: int = 1_280
    held_out_seed: int = 12_345

    def __post_init__(self) -> None:
        super().__post_init__()
        require_count("training_sequences", self.training_sequences)

    @abstractmethod
    def _sequence(self, draws: Draws, training: bool) -> Sequence:
        """One sequence, to train on or to evaluate on."""

    @cached_property
    def arrays(self) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """Inputs and targets, (S, L) int64, to train on and to evaluate on: the files that mad-lab writes."""
        draws = Draws(self.held_out_seed)
        return self._set(draws, self.training_sequences, True), self._set(draws, self.held_out_sequences, False)

    @property
    def chance(self) -> float:
        """Accuracy, on the held-out sequences, of answering each with the answer that stands in it most often."""
        return self._chance

    @cached_property
    def _chance(self) -> float:
        return counting_accuracy(*self.arrays[1])

    def sample(self, batch_size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """A random batch of the sequences to train on: inputs and targets, (S, L) int64 each."""
        self._check_batch(batch_size, generator)
        chosen = torch.randint(self.training_sequences, (batch_size,), generator=generator)
        inputs, targets = self.arrays[0]
        return inputs[chosen], targets[chosen]

    def held_out(self, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """The evaluation sequences, in their order; the last batch may be smaller."""
        size = require_count("batch_size", batch_size)
        yield from zip(*(torch.split(array, size) for array in self.arrays[1]), strict=True)

    def _set(self, draws: Draws, count: int, training: bool) -> tuple[Tensor, Tensor]:
        inputs, targets = zip(*(self._sequence(draws, training) for _ in range(count)), strict=True)
        return torch.tensor(inputs), torch.tensor(targets)


class NoisyTask(MADTask):
    """A task of mad-lab among whose pairs stand tokens that mean nothing; its dataclasses say where."""

    vocabulary_size: int
    length: int
    noise_share: float
    noise_vocabulary: int

    def __post_init__(self) -> None:
        super().__post_init__()
        require_count("length", self.length, 4)
        require_count("noise_vocabulary", self.noise_vocabulary, 0)
        require_real("noise_share", self.noise_share, least=0, below=1)
        if self.noise_share and not self.noise_vocabulary:
            raise InputError("noise_vocabulary must be at least 1 where noise_share is above 0, got 0. Give both.")

    def _require_symbols(self, symbols: int) -> None:
        """Refuse a vocabulary that leaves less than two keys and two values."""
        if symbols < 4:
            raise InputError(
                f"vocabulary_size must leave at least 4 ids for keys and values, got {self.vocabulary_size}, which "
                f"leaves {symbols}. Give at least {self.vocabulary_size + 4 - symbols}."
            )
