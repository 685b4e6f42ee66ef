"""Weighted linear attention (WLA): key channels forget at constant rates."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from statesize.lab.mixers.chunk import bounded_log_decay
from statesize.lab.mixers.config import ModelConfig, mixer
from statesize.lab.mixers.la import LinearAttention


@mixer("wla")
class WeightedLinearAttention(LinearAttention):
    """Linear attention with an input-invariant diagonal decay, learned per head and key channel.

    Orvieto et al., "Resurrecting Recurrent Neural Networks for Long Sequences", ICML 2023; Parnichkun et al. 2025,
    arXiv 2504.19561. Differs from the paper: a decay for each key channel, logsigmoid / 16.

    Args:
        config: Shape of the model; `decay_bias` is where the decays start.
    """

    kept = ("decay_bias",)

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.decay_bias = nn.Parameter(torch.full((self.heads, self.key_size), float(config.decay_bias)))

    def log_decay(self, hidden: Tensor) -> Tensor:
        """Ln a, the same at each position of each sequence, (1, H, L, n)."""
        return bounded_log_decay(self.decay_bias)[None, :, None].expand(1, -1, hidden.shape[1], -1)
