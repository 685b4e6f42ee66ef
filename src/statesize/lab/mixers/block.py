"""One layer of the language model: norm, mixer and gated MLP on a residual stream."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from statesize.lab.mixers.attention.delta_net import DeltaNet, GatedDeltaNet, ReflectingDeltaNet
from statesize.lab.mixers.attention.gated import GatedLinearAttention, GatedLinearAttentionS6, WeightedLinearAttention
from statesize.lab.mixers.attention.linear import LinearAttention
from statesize.lab.mixers.attention.normalised import NormalisedLinearAttention
from statesize.lab.mixers.attention.rules import (
    Retention,
    ScalarGatedLinearAttention,
    StepLinearAttention,
    TiedGateLinearAttention,
    UnitKeyLinearAttention,
    VectorDeltaNet,
)
from statesize.lab.mixers.attention.softmax import SlidingWindowAttention, SoftmaxAttention
from statesize.lab.mixers.config import ModelConfig
from statesize.lab.mixers.convolution import S4D
from statesize.lab.mixers.mixer import NORM_EPSILON
from statesize.lab.mixers.registry import MIXERS, registered_mixer
from statesize.lab.mixers.s6 import S6

MIXERS |= {
    mixer.kind: mixer
    for mixer in (
        SoftmaxAttention,
        LinearAttention,
        WeightedLinearAttention,
        GatedLinearAttention,
        S6,
        GatedLinearAttentionS6,
        S4D,
        NormalisedLinearAttention,
        SlidingWindowAttention,
        DeltaNet,
        GatedDeltaNet,
        Retention,
        ScalarGatedLinearAttention,
        UnitKeyLinearAttention,
        TiedGateLinearAttention,
        StepLinearAttention,
        ReflectingDeltaNet,
        VectorDeltaNet,
    )
}


class GatedMLP(nn.Module):
    """SwiGLU: W₂ (silu(W_g x) ⊙ W_u x), without biases (Shazeer 2020).

    Args:
        config: Shape of the model; the hidden width is mlp_factor · width.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        hidden = config.mlp_factor * config.width
        self.input_projection = nn.Linear(config.width, 2 * hidden, bias=False)
        self.output_projection = nn.Linear(hidden, config.width, bias=False)

    def forward(self, hidden: Tensor) -> Tensor:
        """Applies the MLP to each position.

        Args:
            hidden: (..., d).

        Returns:
            (..., d).
        """
        gate, up = self.input_projection(hidden).chunk(2, dim=-1)
        return self.output_projection(functional.silu(gate) * up)


class LocalDropout(nn.Module):
    """Dropout that draws from a generator of its own, so that no global random state is read or changed."""

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.probability = probability
        self.generator: torch.Generator | None = None
        """Source of the masks; None is torch's default generator."""

    def forward(self, hidden: Tensor) -> Tensor:
        """Drops entries in training mode, of any shape; returns `hidden` itself otherwise."""
        if not self.training or self.probability == 0:
            return hidden
        mask = torch.empty_like(hidden).bernoulli_(1 - self.probability, generator=self.generator)
        return hidden * mask / (1 - self.probability)


def residual_norm(config: ModelConfig) -> nn.RMSNorm:
    """The norm of what a layer reads of the residual stream."""
    return nn.RMSNorm(config.width, eps=NORM_EPSILON)


class Block(nn.Module):
    """h ← h + mixer(norm(h)), then h ← h + mlp(norm(h)).

    Args:
        config: Shape of the model.
        layer: Which layer it is, from 0; `config.mixer` says what mixes there.
    """

    def __init__(self, config: ModelConfig, layer: int = 0) -> None:
        super().__init__()
        self.mixer_norm = residual_norm(config)
        self.mixer = _mixer(config, layer)
        self.mlp_norm = residual_norm(config) if config.mlp_factor else None
        self.mlp = GatedMLP(config) if config.mlp_factor else None
        self.dropout = LocalDropout(config.dropout)

    def forward(self, hidden: Tensor) -> Tensor:
        """Applies the layer to whole sequences.

        Args:
            hidden: (S, L, d).

        Returns:
            (S, L, d).
        """
        return self._with_mlp(hidden + self.dropout(self.mixer(self.mixer_norm(hidden))))

    def step(self, hidden: Tensor, cache: Any) -> tuple[Tensor, Any]:
        """Applies the layer to one token of every sequence.

        Args:
            hidden: (S, d).
            cache: The mixer's cache.

        Returns:
            The output (S, d) and the mixer's next cache.
        """
        mixed, cache = self.mixer.step(self.mixer_norm(hidden), cache)
        return self._with_mlp(hidden + self.dropout(mixed)), cache

    def _with_mlp(self, hidden: Tensor) -> Tensor:
        if self.mlp is None or self.mlp_norm is None:
            return hidden
        return hidden + self.dropout(self.mlp(self.mlp_norm(hidden)))


def _mixer(config: ModelConfig, layer: int) -> Any:
    name = config.mixer_of(layer)
    if name in MIXERS:
        return MIXERS[name](config)
    # It gives its weights and buffers first values of its own, and on the meta device there are none.
    with torch.device("cpu"):
        return registered_mixer(name)(config)
