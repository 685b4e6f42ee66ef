"""Linear attention whose key channels forget: at constant rates (WLA), or at rates of the token (GLA, GLA-S6)."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from statesize.lab.mixers.attention.chunk import MINIMUM_LOG_DECAY, minimum_log_decay
from statesize.lab.mixers.attention.linear import LinearAttention
from statesize.lab.mixers.config import ModelConfig
from statesize.lab.mixers.s6 import selective_initial_values


def _bounded_log_decay(logits: Tensor) -> Tensor:
    """logsigmoid(logits) / 16, of any shape, kept above `MINIMUM_LOG_DECAY` for the chunk-parallel form."""
    # After Yang et al. 2024: heads start with a memory of tens to hundreds of tokens.
    return (functional.logsigmoid(logits) / 16.0).clamp(min=MINIMUM_LOG_DECAY)


class WeightedLinearAttention(LinearAttention):
    """Linear attention with an input-invariant diagonal decay, learned per head and key channel.

    Orvieto et al., "Resurrecting Recurrent Neural Networks for Long Sequences", ICML 2023; Parnichkun et al. 2025,
    arXiv 2504.19561. Differs from the paper: a decay for each key channel, logsigmoid / 16.

    Args:
        config: Shape of the model; `decay_bias` is where the decays start.
    """

    kind = "wla"

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.decay_bias = nn.Parameter(torch.empty(self.heads, self.key_size))
        self.set_initial_values()

    def initial_values(self) -> dict[str, Tensor]:
        """Where the decays start."""
        return {"decay_bias": torch.full_like(self.decay_bias, self.config.decay_bias)}

    def log_decay(self, hidden: Tensor) -> Tensor:
        """Logarithm of the decay, the same at each position of each sequence, (1, H, L, n)."""
        decay = _bounded_log_decay(self.decay_bias)
        return decay[None, :, None].expand(1, -1, hidden.shape[1], -1)


class GatedLinearAttention(LinearAttention):
    """Linear attention with an input-varying diagonal decay ln a = logsigmoid(W x + b) / 16.

    Yang et al., "Gated Linear Attention Transformers with Hardware-Efficient Training", ICML 2024. Differs from the
    paper: decays by a full matrix; no swish gate; short convolution.

    Args:
        config: Shape of the model; `decay_bias` is where b starts.
    """

    kind = "gla"
    decays_alike: ClassVar[bool] = False
    """Whether all key channels of a head have one decay."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.decay = nn.Linear(config.width, self.heads * (1 if self.decays_alike else self.key_size))
        self.set_initial_values()

    def initial_values(self) -> dict[str, Tensor]:
        """First value of b."""
        return {"decay.bias": torch.full_like(self.decay.bias, self.config.decay_bias)}

    def log_decay(self, hidden: Tensor) -> Tensor:
        """Logarithm of the decay at each position, (S, H, L, n or 1)."""
        logits = self.decay(hidden).unflatten(-1, (self.heads, -1))
        return _bounded_log_decay(logits).transpose(1, 2)


class GatedLinearAttentionS6(LinearAttention):
    """Linear attention with the decay ln a = Δ_t A of S6: Δ = softplus(W x + b) for each head, A for its n states.

    A and b are learned; A starts at −1 … −n, or at −1/n … −n/n if `config.normalised`.

    Parnichkun et al. 2025, arXiv 2504.19561. Differs from the paper: ln a ≥ −16.

    Args:
        config: Shape of the model; `normalised`, `smallest_step` and `largest_step` are where A and b start.
    """

    kind = "gla-s6"
    # Decays down to e^−16, one ten-millionth, are exact; with the longer chunks of the others they would overflow.
    chunk_size = 8

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.step_projection = nn.Linear(config.width, config.heads)
        self.log_rate = nn.Parameter(torch.empty(config.heads, self.key_size))
        self.set_initial_values()

    def initial_values(self) -> dict[str, Tensor]:
        """First values of A and b."""
        return selective_initial_values(self.config, *self.log_rate.shape)

    def log_decay(self, hidden: Tensor) -> Tensor:
        """Logarithm of the decay at each position, (S, H, L, n), at least −16."""
        steps = functional.softplus(self.step_projection(hidden)).transpose(1, 2).unsqueeze(-1)
        return (steps * -self.log_rate.exp().unsqueeze(-2)).clamp(min=minimum_log_decay(self.chunk_size))
