"""Symbols that are to be repeated: copying, selective copying and compression, and the chance to guess them.

Sources: Arjovsky et al., "Unitary evolution recurrent neural networks", 2016, and the data set `copying` of
state-spaces/s4, whose draws those of `Copying` are; Gu & Dao, "Mamba: Linear-time sequence modeling with selective
state spaces", 2023, section 4.1.1, and Jing et al., "Gated orthogonal recurrent units: on learning to forget", 2019;
Poli et al., "Mechanistic design and scaling of hybrid architectures" (MAD), 2024, section 3.1 and appendix B, and
mad/data/instances.py in the repository athms/mad-lab.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from statesize.check import require_count
from statesize.errors import InputError
from statesize.lab.tasks.synthetic import SyntheticTask, distinct, random_seed, require_option
from statesize.lab.tasks.task import IGNORED


class SymbolTask(SyntheticTask):
    """A task whose targets are symbols, drawn independently and uniformly; its dataclasses say where they stand."""

    tokens: int  # symbols of a sequence that are to be repeated, at least 2
    symbols: int  # different symbols, at least 2

    def __post_init__(self) -> None:
        super().__post_init__()
        require_count("tokens", self.tokens, 2)
        require_count("symbols", self.symbols, 2)

    @property
    def items(self) -> int:
        """The number of symbols to be repeated."""
        return self.tokens

    @property
    def chance(self) -> float:
        """Expected share of the most frequent symbol among those of a sequence."""
        return most_frequent_share(self.tokens, self.symbols)


@dataclass(frozen=True)
class Copying(SymbolTask):
    """Copying: N symbols, B blanks, then N markers at which the symbols are repeated in order.

    Id 0 is the blank, 1 … K are symbols, K + 1 is the marker. The defaults are those of S4's data set; its experiment
    of long copying is `Copying(tokens=1024, blanks=0, symbols=62)`. The state of torch's generator gives the sequences
    that S4's function makes of it.

    Attributes:
        tokens: symbols to be copied, N, at least 2; `l_memorize` in S4.
        blanks: B; `l_noise` there.
        symbols: different symbols, K, at least 2; `n_tokens` − 2 there.
        reverse: whether they are repeated last one first; `reverse` there.
        held_out_sequences: sequences to evaluate on.
        held_out_seed: which ones.

    Raises:
        InputError: a number is out of range.

    Examples:
        >>> task = Copying(tokens=2, blanks=3, symbols=5)
        >>> inputs, targets = task.sample(1, torch.Generator().manual_seed(0))
        >>> inputs.tolist(), targets[0, -2:].tolist()
        ([[5, 5, 0, 0, 0, 6, 6]], [5, 5])
    """

    tokens: int = 10
    blanks: int = 100
    symbols: int = 8
    reverse: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        require_count("blanks", self.blanks, 0)

    @property
    def vocabulary_size(self) -> int:
        """The symbols, the blank and the marker."""
        return self.symbols + 2

    @property
    def length(self) -> int:
        """Tokens of a sequence, L = 2N + B."""
        return 2 * self.tokens + self.blanks

    def sample(self, batch_size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """A random batch: inputs and targets, (S, L) int64 each."""
        self._check_batch(batch_size, generator)
        context = self.length - self.tokens
        copied = torch.randint(1, self.symbols + 1, (batch_size, self.tokens), generator=generator)
        inputs = torch.zeros(batch_size, self.length, dtype=torch.int64)
        inputs[:, : self.tokens], inputs[:, context:] = copied, self.symbols + 1
        targets = torch.full_like(inputs, IGNORED)
        targets[:, context:] = copied.flip(1) if self.reverse else copied
        return inputs, targets


@dataclass(frozen=True)
class SelectiveCopying(SymbolTask):
    """Selective copying: symbols stand among blanks, then they are to be repeated in order.

    Token ids 0 … K − 1 are symbols, K is the blank and K + 1 the marker. A sequence is

        L − N positions with N symbols among blanks   then N markers

    with symbols drawn independently and uniformly, at positions of which every choice is as likely as any other. The
    target at the j-th marker is the j-th symbol; nothing else has a target.

    With `mad` a batch is what mad-lab's generator makes of a random seed. One marker stands before N blanks, at which
    the symbols are repeated, and each blank before it stands before a symbol that is drawn for it uniformly, so that
    the last symbol is always right before the marker.

    Attributes:
        tokens: symbols to be copied, N, at least 2.
        length: tokens of a sequence, L, at least 2N; more than 2N + 1 with `mad`.
        symbols: different symbols, K, at least 2; 14 in Mamba, whose vocabulary of 16 has the blank and the marker.
        mad: whether sequences are those of mad-lab.
        held_out_sequences: sequences to evaluate on.
        held_out_seed: which ones.

    Raises:
        InputError: a number is out of range, or the tokens do not fit in the length.

    Examples:
        >>> task = SelectiveCopying(tokens=3, length=10, symbols=4)
        >>> inputs, targets = task.sample(1, torch.Generator().manual_seed(0))
        >>> inputs[inputs < 4].equal(targets[0, -3:])
        True
    """

    tokens: int = 8
    length: int = 64
    symbols: int = 14
    mad: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        least, marked = (2 * self.tokens + 2, "a blank") if self.mad else (2 * self.tokens, "a marker")
        if self.length < least:
            raise InputError(
                f"length must be at least {least}, for {self.tokens} tokens and {marked} each, got {self.length}. Give "
                "a longer one, or fewer tokens."
            )

    @property
    def vocabulary_size(self) -> int:
        """The symbols, the blank and the marker."""
        return self.symbols + 2

    def sample(self, batch_size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """A random batch: inputs and targets, (S, L) int64 each."""
        self._check_batch(batch_size, generator)
        if self.mad:
            return self.mad_arrays(batch_size, random_seed(generator))
        copied = torch.randint(self.symbols, (batch_size, self.tokens), generator=generator)
        columns = distinct(self.length - self.tokens, self.tokens, batch_size, generator).sort().values
        return self._repeated(copied, columns)

    def mad_arrays(self, sequences: int, seed: int) -> tuple[Tensor, Tensor]:
        """What mad-lab's generator returns for a seed: the sequences to train on, then those to evaluate on.

        Args:
            sequences: number of sequences, S.
            seed: of both generators of NumPy that it draws from.

        Returns:
            Inputs and targets, (S, L) int64.

        Raises:
            InputError: `mad` is False.
        """
        require_option("mad", self.mad)
        copied = torch.from_numpy(np.random.default_rng(seed).integers(self.symbols, size=(sequences, self.tokens)))
        blanks = (sequences, self.length - 2 * self.tokens - 1)
        before = torch.from_numpy(np.random.RandomState(seed).randint(0, self.tokens, blanks))
        order = torch.arange(self.tokens)
        return self._repeated(copied, order + (before[:, None] <= order[:, None]).sum(-1))

    def _repeated(self, copied: Tensor, columns: Tensor) -> tuple[Tensor, Tensor]:
        """Inputs with symbols (S, N) in columns (S, N), and targets."""
        context = self.length - self.tokens
        inputs = torch.full((len(copied), self.length), self.symbols)
        inputs[:, slice(context - 1, context) if self.mad else slice(context, None)] = self.symbols + 1
        targets = torch.full_like(inputs, IGNORED)
        targets[:, context:] = copied
        return inputs.scatter_(1, columns, copied), targets


@dataclass(frozen=True)
class Compression(SymbolTask):
    """Compression: random symbols, a token that ends them, then every index is queried, in random order.

    Token ids 0 … K − 1 are symbols, K is the compression token and K + j the index j = 1 … N. A sequence of L = 2N + 1
    tokens is

        x₁ x₂ … x_N   c   q₁ q₂ … q_N

    with symbols drawn independently and uniformly, and the indices q in an order of which all are as likely. The target
    at an index j is x_j; nothing else has a target.

    In MAD the output at c, one vector, is decoded by a network that takes the index. Here the model itself decodes:
    all that a recurrent layer can know of the symbols at the indices is its state after c, so its ESS there is what the
    task needs. Because the indices come in random order, no fixed delay solves it.

    With `mad` a batch is what mad-lab's generator makes of a random seed: symbols and c, and the target at each
    position is the token there. A model that answers at the same positions needs no memory for that, and a training on
    it warns.

    Attributes:
        tokens: symbols of a sequence, N, at least 2.
        symbols: different symbols, K, at least 2; 15 in MAD, whose vocabulary of 16 has the compression token.
        mad: whether sequences are those of mad-lab.
        held_out_sequences: sequences to evaluate on.
        held_out_seed: which ones.

    Raises:
        InputError: a number is out of range.

    Examples:
        >>> task = Compression(tokens=3, symbols=10)
        >>> inputs, targets = task.sample(1, torch.Generator().manual_seed(0))
        >>> inputs[0, inputs[0, 4:] - 11].equal(targets[0, 4:])
        True
    """

    tokens: int = 16
    symbols: int = 15
    mad: bool = False

    @property
    def vocabulary_size(self) -> int:
        """The symbols, the compression token and the indices; no indices with `mad`."""
        return self.symbols + 1 + (0 if self.mad else self.tokens)

    @property
    def length(self) -> int:
        """Tokens of a sequence, L = 2N + 1, or N + 1 with `mad`."""
        return (1 if self.mad else 2) * self.tokens + 1

    @property
    def chance(self) -> float:
        """Expected share of the most frequent symbol among the answers of a sequence."""
        return super().chance * (self.tokens / self.length if self.mad else 1)

    def sample(self, batch_size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """A random batch: inputs and targets, (S, L) int64 each."""
        self._check_batch(batch_size, generator)
        if self.mad:
            return self.mad_arrays(batch_size, random_seed(generator))
        compressed = torch.randint(self.symbols, (batch_size, self.tokens), generator=generator)
        queries = distinct(self.tokens, self.tokens, batch_size, generator)
        end = torch.full((batch_size, 1), self.symbols)
        inputs = torch.cat([compressed, end, self.symbols + 1 + queries], dim=1)
        targets = torch.full_like(inputs, IGNORED)
        targets[:, self.tokens + 1 :] = compressed.gather(1, queries)
        return inputs, targets

    def mad_arrays(self, sequences: int, seed: int) -> tuple[Tensor, Tensor]:
        """What mad-lab's generator returns for a seed: the sequences to train on, then those to evaluate on.

        Args:
            sequences: number of sequences, S.
            seed: of NumPy's generator.

        Returns:
            Inputs and targets, (S, L) int64.

        Raises:
            InputError: `mad` is False.
        """
        require_option("mad", self.mad)
        drawn = np.random.default_rng(seed).integers(self.symbols, size=(sequences, self.tokens))
        inputs = torch.nn.functional.pad(torch.from_numpy(drawn), (0, 1), value=self.symbols)
        return inputs, inputs.clone()


def most_frequent_share(draws: int, symbols: int) -> float:
    """Expected share of the most frequent symbol among independent, uniform draws.

    One who knows how often each symbol occurs in a sequence, but not where, does best to answer every position with
    the most frequent one, and is right at this share of them. The counts of the symbols are independent Poisson
    variables of mean `draws / symbols`, if they add up to `draws`; the chance that none is above m is then a
    coefficient of a power of the truncated generating function, which a Fourier transform gives.

    Args:
        draws: number of draws, at least 1.
        symbols: number of symbols, at least 1.

    Returns:
        E[largest count] / draws, to about 1e-10.

    Raises:
        InputError: One of them is no positive whole number.

    Examples:
        >>> round(most_frequent_share(2, 4), 12)  # both draws are equal once in four times
        0.625
    """
    return _most_frequent_share(require_count("draws", draws), require_count("symbols", symbols))


@functools.cache
def _most_frequent_share(draws: int, symbols: int) -> float:
    mean = draws / symbols
    total = _poisson(draws, float(draws))
    expected = 0.0
    for most in range(draws):
        if most * symbols < draws:
            expected += 1.0
            continue
        truncated = np.array([_poisson(count, mean) for count in range(most + 1)])
        degrees = most * symbols + 1
        power = np.fft.irfft(np.fft.rfft(truncated, degrees) ** symbols, degrees)
        above = 1 - power[draws] / total
        if above < 1e-10:  # and falls faster than geometrically from here; the transform is good to about 1e-12
            break
        expected += above
    return float(expected / draws)


def _poisson(count: int, mean: float) -> float:
    return math.exp(count * math.log(mean) - mean - math.lgamma(count + 1))
