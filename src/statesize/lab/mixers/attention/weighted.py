"""Weighted linear attention (WLA): each head and key channel forgets at its own learned, constant rate."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from statesize.lab.mixers.attention.chunk import MINIMUM_LOG_DECAY
from statesize.lab.mixers.attention.linear import LinearAttention
from statesize.lab.mixers.config import ModelConfig

DECAY_TEMPERATURE = 16.0
"""ln a = logsigmoid(·) / 16, after Yang et al. 2024: heads start with a memory of tens to hundreds of tokens."""


def bounded_log_decay(logits: Tensor) -> Tensor:
    """logsigmoid(logits) / 16, of any shape, kept above `MINIMUM_LOG_DECAY` for the chunk-parallel form."""
    return (functional.logsigmoid(logits) / DECAY_TEMPERATURE).clamp(min=MINIMUM_LOG_DECAY)


class WeightedLinearAttention(LinearAttention):
    """Linear attention with an input-invariant diagonal decay, learned per head and key channel.

    Args:
        config: Shape of the model; `decay_bias` is where the decays start.
        state_sizes: As for `LinearAttention`.
    """

    kind = "wla"
    any_basis = False

    def __init__(self, config: ModelConfig, state_sizes: tuple[int, ...] = ()) -> None:
        super().__init__(config, state_sizes)
        self.decay_bias = nn.Parameter(torch.empty(self.heads, self.state_size))
        self.set_initial_values()

    def initial_values(self) -> dict[str, Tensor]:
        """Where the decays start."""
        return {"decay_bias": torch.full_like(self.decay_bias, self.config.decay_bias)}

    def log_decay(self, hidden: Tensor) -> Tensor:
        """Logarithm of the decay, the same at each position of each sequence, (1, H, L, n)."""
        decay = bounded_log_decay(self.decay_bias)
        return decay[None, :, None].expand(1, -1, hidden.shape[1], -1)
