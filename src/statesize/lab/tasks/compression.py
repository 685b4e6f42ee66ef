"""Compression: every symbol of a sequence is to be told by its place, after one token.

Source: Poli et al., "Mechanistic design and scaling of hybrid architectures" (MAD), 2024, section 3.1 and appendix B.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from statesize.lab.tasks.base import IGNORED, count, distinct, task
from statesize.lab.tasks.symbols import SymbolTask


@task("compression")
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

    Attributes:
        tokens: symbols of a sequence, N, at least 2.
        symbols: different symbols, K, at least 2; 15 in MAD, whose vocabulary of 16 has the compression token.

    Examples:
        >>> task = Compression(tokens=3, symbols=10)
        >>> inputs, targets = task.sample(1, torch.Generator().manual_seed(0))
        >>> inputs[0, inputs[0, 4:] - 11].equal(targets[0, 4:])
        True
    """

    tokens: int = count(16, least=2)
    symbols: int = count(15, least=2)

    @property
    def vocabulary_size(self) -> int:
        """The symbols, the compression token and the indices."""
        return self.symbols + 1 + self.tokens

    @property
    def length(self) -> int:
        """Tokens of a sequence, L = 2N + 1."""
        return 2 * self.tokens + 1

    def sample(self, batch_size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """A random batch: inputs and targets, (S, L) int64 each."""
        compressed = torch.randint(self.symbols, (batch_size, self.tokens), generator=generator)
        queries = distinct(self.tokens, self.tokens, batch_size, generator)
        end = torch.full((batch_size, 1), self.symbols)
        inputs = torch.cat([compressed, end, self.symbols + 1 + queries], dim=1)
        targets = torch.full_like(inputs, IGNORED)
        targets[:, self.tokens + 1 :] = compressed.gather(1, queries)
        return inputs, targets
