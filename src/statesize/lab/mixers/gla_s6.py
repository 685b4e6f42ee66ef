"""GLA-S6: linear attention that forgets as S6 does."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from statesize.lab.mixers.chunk import minimum_log_decay
from statesize.lab.mixers.config import ModelConfig, mixer
from statesize.lab.mixers.la import LinearAttention
from statesize.lab.mixers.starts import selective_log_rates, step_projection


@mixer("gla-s6")
class GatedLinearAttentionS6(LinearAttention):
    """Linear attention with the decay ln a = Δ_t A of S6: Δ = softplus(W x + b) for each head, A for its n states.

    A and b are learned; A starts at −1 … −n, or at −1/n … −n/n if `config.normalised`.

    Parnichkun et al. 2025, arXiv 2504.19561. Differs from the paper: ln a ≥ −16.

    Args:
        config: Shape of the model; `normalised`, `smallest_step` and `largest_step` are where A and b start.
    """

    kept = ("step_projection.bias", "log_rate")
    # Decays down to e^−16, one ten-millionth, are exact; with the longer chunks of the others they would overflow.
    chunk_size = 8

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.step_projection = step_projection(config, config.heads)
        self.log_rate = selective_log_rates(config, config.heads)

    def log_decay(self, hidden: Tensor) -> Tensor:
        """Logarithm of a at each position, (S, H, L, n), at least −16."""
        steps = functional.softplus(self.step_projection(hidden)).transpose(1, 2).unsqueeze(-1)
        return (steps * -self.log_rate.exp().unsqueeze(-2)).clamp(min=minimum_log_decay(self.chunk_size))
