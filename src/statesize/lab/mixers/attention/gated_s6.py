"""Gated linear attention with the decays of S6 (GLA-S6)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from statesize.lab.mixers.attention.chunk import minimum_log_decay
from statesize.lab.mixers.attention.linear import LinearAttention
from statesize.lab.mixers.config import ModelConfig
from statesize.lab.mixers.decays import selective_initial_values


class GatedLinearAttentionS6(LinearAttention):
    """Linear attention with the decay ln a = Δ_t A of S6: Δ = softplus(W x + b) for each head, A for its n states.

    A and b are learned; A starts at −1 … −n, or at −1/n … −n/n if `config.normalised` (Parnichkun et al. 2025,
    arXiv 2504.19561).

    Args:
        config: Shape of the model; `normalised`, `smallest_step` and `largest_step` are where A and b start.
        state_sizes: As for `LinearAttention`.
    """

    kind = "gla-s6"
    any_basis = False
    # Decays down to e^−16, one ten-millionth, are exact; with the longer chunks of the others they would overflow.
    chunk_size = 8

    def __init__(self, config: ModelConfig, state_sizes: tuple[int, ...] = ()) -> None:
        super().__init__(config, state_sizes)
        self.step_projection = nn.Linear(config.width, config.heads)
        self.log_rate = nn.Parameter(torch.empty(config.heads, self.state_size))
        self.set_initial_values()

    def initial_values(self) -> dict[str, Tensor]:
        """First values of A and b."""
        return selective_initial_values(self.config, *self.log_rate.shape)

    def log_decay(self, hidden: Tensor) -> Tensor:
        """Logarithm of the decay at each position, (S, H, L, n), at least −16."""
        steps = functional.softplus(self.step_projection(hidden)).transpose(1, 2).unsqueeze(-1)
        return (steps * -self.log_rate.exp().unsqueeze(-2)).clamp(min=minimum_log_decay(self.chunk_size))
