"""Gated linear attention (GLA): each head and key channel forgets at a rate that depends on the token."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from statesize.lab.mixers.attention.linear import LinearAttention
from statesize.lab.mixers.attention.weighted import bounded_log_decay
from statesize.lab.mixers.config import ModelConfig


class GatedLinearAttention(LinearAttention):
    """Linear attention with an input-varying diagonal decay ln a = logsigmoid(W x + b) / 16.

    Yang et al., "Gated Linear Attention Transformers with Hardware-Efficient Training", ICML 2024.

    Args:
        config: Shape of the model; `decay_bias` is where b starts.
        state_sizes: As for `LinearAttention`.
    """

    kind = "gla"
    any_basis = False
    decay_rank: ClassVar[int | None] = None
    """Rank of W; None where it is one full matrix."""

    def __init__(self, config: ModelConfig, state_sizes: tuple[int, ...] = ()) -> None:
        super().__init__(config, state_sizes)
        rank = self.decay_rank
        self.decay_input = None if rank is None else nn.Linear(config.width, rank, bias=False)
        self.decay = nn.Linear(rank or config.width, self.heads * self.state_size)
        self.set_initial_values()

    def initial_values(self) -> dict[str, Tensor]:
        """First value of b."""
        return {"decay.bias": torch.full_like(self.decay.bias, self.config.decay_bias)}

    def log_decay(self, hidden: Tensor) -> Tensor:
        """Logarithm of the decay at each position, (S, H, L, n)."""
        inputs = hidden if self.decay_input is None else self.decay_input(hidden)
        logits = self.decay(inputs).unflatten(-1, (self.heads, self.state_size))
        return bounded_log_decay(logits).transpose(1, 2)


class FullGatedLinearAttention(GatedLinearAttention):
    """Gated linear attention as published: decays of rank 16, silu after the short convolution, a swish output gate.

    Yang et al. 2024, as for `GatedLinearAttention`.

    Args:
        config: As for `GatedLinearAttention`.
        state_sizes: As for `LinearAttention`.
    """

    kind = "gla-full"
    activated = True
    gated = True
    decay_rank = 16
