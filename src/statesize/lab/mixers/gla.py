"""Gated linear attention (GLA): key channels forget at rates of the token."""

from __future__ import annotations

from torch import Tensor, nn

from statesize.lab.mixers.chunk import bounded_log_decay
from statesize.lab.mixers.config import ModelConfig, mixer
from statesize.lab.mixers.la import LinearAttention


@mixer("gla")
class GatedLinearAttention(LinearAttention):
    """Linear attention with an input-varying diagonal decay ln a = logsigmoid(W x + b) / 16.

    Yang et al., "Gated Linear Attention Transformers with Hardware-Efficient Training", ICML 2024. Differs from the
    paper: decays by a full matrix; no swish gate; short convolution.

    Args:
        config: Shape of the model; `decay_bias` is where b starts.
        decays: Decays of a head: n, one for each key channel, or 1.
    """

    kept = ("decay.bias",)

    def __init__(self, config: ModelConfig, decays: int | None = None) -> None:
        super().__init__(config)
        self.decay = nn.Linear(config.width, self.heads * (decays or self.key_size))
        nn.init.constant_(self.decay.bias, config.decay_bias)

    def log_decay(self, hidden: Tensor) -> Tensor:
        """Logarithm of a at each position, (S, H, L, decays)."""
        return bounded_log_decay(self.decay(hidden).unflatten(-1, (self.heads, -1))).transpose(1, 2)
