"""Selective copying: symbols that stand among blanks are to be repeated in order.

Sources: Gu & Dao, "Mamba: Linear-time sequence modeling with selective state spaces", 2023, section 4.1.1; Jing et al.,
"Gated orthogonal recurrent units: on learning to forget", 2019.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from statesize.check import refuse
from statesize.lab.tasks.base import IGNORED, count, distinct, task
from statesize.lab.tasks.symbols import SymbolTask


@task("selective_copying")
@dataclass(frozen=True)
class SelectiveCopying(SymbolTask):
    """Selective copying: symbols stand among blanks, then they are to be repeated in order.

    Token ids 0 … K − 1 are symbols, K is the blank and K + 1 the marker. A sequence is

        L − N positions with N symbols among blanks   then N markers

    with symbols drawn independently and uniformly, at positions of which every choice is as likely as any other. The
    target at the j-th marker is the j-th symbol; nothing else has a target.

    Attributes:
        tokens: symbols to be copied, N, at least 2.
        length: tokens of a sequence, L, at least 2N.
        symbols: different symbols, K, at least 2; 14 in Mamba, whose vocabulary of 16 has the blank and the marker.

    Examples:
        >>> task = SelectiveCopying(tokens=3, length=10, symbols=4)
        >>> inputs, targets = task.sample(1, torch.Generator().manual_seed(0))
        >>> inputs[inputs < 4].equal(targets[0, -3:])
        True
    """

    tokens: int = count(8, least=2)
    length: int = 64
    symbols: int = count(14, least=2)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.length < 2 * self.tokens:
            refuse("length", f"at least {2 * self.tokens}, for {self.tokens} tokens and a marker each", self.length)

    @property
    def vocabulary_size(self) -> int:
        """The symbols, the blank and the marker."""
        return self.symbols + 2

    def sample(self, batch_size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """A random batch: inputs and targets, (S, L) int64 each."""
        copied = torch.randint(self.symbols, (batch_size, self.tokens), generator=generator)
        columns = distinct(self.length - self.tokens, self.tokens, batch_size, generator).sort().values
        context = self.length - self.tokens
        inputs = torch.full((len(copied), self.length), self.symbols)
        inputs[:, context:] = self.symbols + 1
        targets = torch.full_like(inputs, IGNORED)
        targets[:, context:] = copied
        return inputs.scatter_(1, columns, copied), targets
