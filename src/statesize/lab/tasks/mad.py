"""Selective copying and compression of mad-lab, and what all of its tasks share: fixed sequences, drawn from NumPy.

A seed gives the arrays that mad-lab's own generators return. Source: Poli et al., "Mechanistic design and scaling of
hybrid architectures" (MAD), 2024, appendix B, and mad/data/instances.py in the repository athms/mad-lab.
"""

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
from statesize.lab.tasks.arrays import counting_accuracy
from statesize.lab.tasks.synthetic import SyntheticTask
from statesize.lab.tasks.task import IGNORED

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
        if self._symbols < 4:
            raise InputError(
                f"vocabulary_size must leave at least 4 ids for keys and values, got {self.vocabulary_size}, which "
                f"leaves {self._symbols}. Give at least {self.vocabulary_size + 4 - self._symbols}."
            )

    @property
    def _symbols(self) -> int:
        """How many ids are neither noise nor special."""
        return self.vocabulary_size - self.noise_vocabulary - 1

    def _noise(self, draws: Draws, count: int) -> list[int]:
        return [self._symbols + token for token in draws.numbers(self.noise_vocabulary, count)]


@dataclass(frozen=True)
class MADSelectiveCopying(MADTask):
    """Selective copying: symbols with blanks before them, a marker, then as many blanks as symbols, to repeat them in.

    Ids 0 … V − 3 are symbols, V − 2 is the blank and V − 1 the marker. Each blank stands before a symbol that is drawn
    for it uniformly, so that the last symbol is always right before the marker.

    Attributes:
        vocabulary_size: number of token ids, V, `vocab_size` in mad-lab.
        length: tokens of a sequence, more than 2 tokens + 1; `seq_len` there.
        tokens: symbols to be copied, `num_tokens_to_copy` there.
        training_sequences: sequences to train on.
        held_out_sequences: sequences to evaluate on.
        held_out_seed: of all sequences.

    Raises:
        InputError: a number is out of range, or the tokens do not fit in the length.

    Examples:
        >>> task = MADSelectiveCopying(8, 10, 3, training_sequences=1, held_out_sequences=1)
        >>> inputs, targets = next(task.held_out(1))
        >>> inputs.tolist(), targets[:, -3:].tolist()
        ([[6, 1, 6, 6, 1, 4, 7, 6, 6, 6]], [[1, 1, 4]])
    """

    vocabulary_size: int = 16
    length: int = 256
    tokens: int = 16

    def __post_init__(self) -> None:
        super().__post_init__()
        require_count("vocabulary_size", self.vocabulary_size, 4)
        require_count("tokens", self.tokens, 2)
        if self.length <= 2 * self.tokens + 1:
            raise InputError(
                f"length must be more than {2 * self.tokens + 1}, two for each token and a marker, got {self.length}. "
                "Give a longer one, or fewer tokens."
            )

    @property
    def items(self) -> int:
        """The number of symbols to be copied."""
        return self.tokens

    def _sequence(self, draws: Draws, training: bool) -> Sequence:
        del training
        blank, blanks = self.vocabulary_size - 2, self.length - 2 * self.tokens - 1
        symbols = draws.numbers(blank, self.tokens)
        before = draws.legacy.randint(0, self.tokens, blanks).tolist()
        tokens = list[int]()
        for index, symbol in enumerate(symbols):
            tokens += [*[blank] * before.count(index), symbol]
        tokens += [blank + 1, *[blank] * self.tokens]
        return tokens, [*[IGNORED] * (self.length - self.tokens), *symbols]


@dataclass(frozen=True)
class MADCompression(NoisyTask):
    """Compression: random symbols and a token that ends them; the target at each position is the token there.

    In mad-lab an encoder keeps its last output only, and a decoder computes all tokens from it. A model that answers at
    the same positions needs no memory for that, and a training on this task warns: `Compression` is the task for
    language models.

    Attributes:
        vocabulary_size: number of token ids, `vocab_size` in mad-lab; the last one ends the sequence.
        length: tokens of a sequence, `seq_len` there.
        noise_share: share of tokens that are noise, `frac_noise` there; they are queried too, as there.
        noise_vocabulary: ids of noise, `noise_vocab_size` there.
        training_sequences: sequences to train on.
        held_out_sequences: sequences to evaluate on.
        held_out_seed: of all sequences.

    Raises:
        InputError: a number is out of range.

    Examples:
        >>> task = MADCompression(vocabulary_size=8, length=6, training_sequences=1, held_out_sequences=1)
        >>> next(task.held_out(1))[0].tolist()
        [[5, 4, 4, 6, 2, 7]]
    """

    vocabulary_size: int = 16
    length: int = 32
    noise_share: float = 0.0
    noise_vocabulary: int = 0

    @property
    def items(self) -> int:
        """The number of symbols."""
        return self.length - 1

    def _sequence(self, draws: Draws, training: bool) -> Sequence:
        del training
        tokens = draws.numbers(self._symbols, self.length - 1)
        for index in range(len(tokens)):
            if draws.happens(self.noise_share):
                tokens[index] = self._symbols + draws.number(self.noise_vocabulary)
        tokens.append(self.vocabulary_size - 1)
        return tokens, tokens
