"""Copying: symbols, a gap, then all of them again.

Source: Arjovsky et al., "Unitary evolution recurrent neural networks", 2016, and the data set `copying` of
state-spaces/s4, whose draws these are.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from statesize.check import require_count
from statesize.lab.tasks.synthetic import SymbolTask
from statesize.lab.tasks.task import IGNORED


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
        spread: whether symbols stand anywhere among the blanks, as in selective copying; `variable` there.
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
    spread: bool = False
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
        columns = torch.arange(self.tokens).repeat(batch_size, 1)
        if self.spread:
            drawn = [torch.randperm(context, generator=generator)[: self.tokens] for _ in range(batch_size)]
            columns = torch.stack(drawn).sort().values
        inputs = torch.zeros(batch_size, self.length, dtype=torch.int64).scatter_(1, columns, copied)
        inputs[:, context:] = self.symbols + 1
        targets = torch.full_like(inputs, IGNORED)
        targets[:, context:] = copied.flip(1) if self.reverse else copied
        return inputs, targets
