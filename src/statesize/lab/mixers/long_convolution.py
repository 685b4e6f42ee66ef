"""A gated convolution as long as the sequence, whose filter is a function of the position (as in Hyena)."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from statesize.lab.mixers.config import ModelConfig
from statesize.lab.mixers.decays import spread_steps
from statesize.lab.mixers.mixer import Mixer
from statesize.operators import GatedConvolution
from statesize.operators.convolution import causal_convolution

_FREQUENCIES = 8
_SHORTEST_WAVE, _LONGEST_WAVE = 4.0, 4096.0


class ImplicitFilter(nn.Module):
    """Kernels h_t = e^{−rate t} W₂ sin(W₁ sin(W₀ z_t + b₀) + b₁) of sines and cosines z_t of the position."""

    # The waves of z_t are between 4 and 4096 positions long, whatever the length of the sequence, so that a longer
    # sequence only adds taps.

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.input_layer = nn.Linear(2 * _FREQUENCIES, config.key_size)
        self.hidden_layer = nn.Linear(config.key_size, config.key_size)
        self.output_layer = nn.Linear(config.key_size, config.width, bias=False)
        self.log_rate = nn.Parameter(torch.empty(config.width))

    def forward(self, length: int) -> Tensor:
        """The first taps of every channel, (d, length)."""
        position = torch.arange(length, dtype=self.log_rate.dtype, device=self.log_rate.device)[:, None]
        fraction = torch.arange(_FREQUENCIES, dtype=position.dtype, device=position.device) / (_FREQUENCIES - 1)
        angle = position * (2 * math.pi / _SHORTEST_WAVE) * (_SHORTEST_WAVE / _LONGEST_WAVE) ** fraction
        features = torch.cat([angle.sin(), angle.cos()], -1)
        hidden = self.hidden_layer(self.input_layer(features).sin()).sin()
        window = (-self.log_rate.exp() * position).exp()
        return (self.output_layer(hidden) * window).T


class LongConvolutionCache(NamedTuple):
    """What `LongConvolution.step` keeps: inputs of the short convolution and of the long one so far, (S, d, t)."""

    convolution: Tensor
    inputs: Tensor


class LongConvolution(Mixer):
    """T = Diag(q) Conv(h) Diag(k) for each channel: gates q and k from the input, a learned filter h.

    Poli et al., "Hyena Hierarchy: Towards Larger Convolutional Language Models", ICML 2023, of order 2.

    Args:
        config: Shape of the model; see `ImplicitFilter` for what key_size and the steps are.
    """

    kind = "hyena"

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config, [config.width] * 3)
        self.filter = ImplicitFilter(config)
        self.set_initial_values()

    def initial_values(self) -> dict[str, Tensor]:
        """First values of the rates of the filter's window."""
        config = self.config
        return {"filter.log_rate": spread_steps(config.width, config.smallest_step, config.largest_step).log()}

    def operator(self, hidden: Tensor) -> GatedConvolution:
        """T of every channel at one input, of batch shape (sequence, channel)."""
        output_gate, input_gate, _ = self._gates_and_values(hidden)
        return GatedConvolution(self.filter(hidden.shape[1])[None], input_gate, output_gate)

    def mixed_values(self, hidden: Tensor) -> Tensor:
        """The values of each channel after mixing, before the norm, (S, d, L, 1)."""
        output_gate, input_gate, value = self._gates_and_values(hidden)
        return (output_gate * causal_convolution(self.filter(hidden.shape[1]), input_gate * value)).unsqueeze(-1)

    def values(self, hidden: Tensor) -> Tensor:
        """The inputs of T: the convolved values, (S, d, L, 1)."""
        return self._gates_and_values(hidden)[2].unsqueeze(-1)

    def initial_cache(self, batch: int) -> LongConvolutionCache:
        """The cache of `step` before the first token."""
        convolution = self._initial_convolution(batch)
        return LongConvolutionCache(convolution, convolution.new_zeros(batch, self.config.width, 0))

    def step(self, hidden: Tensor, cache: LongConvolutionCache) -> tuple[Tensor, LongConvolutionCache]:
        """One token of every sequence, (S, d), and the next cache; equals `forward` on the whole sequence."""
        (output_gate, input_gate, value), convolution = self._step_convolved(hidden, cache.convolution)
        inputs = torch.cat([cache.inputs, (input_gate * value).unsqueeze(-1)], -1)
        mixed = output_gate * (self.filter(inputs.shape[-1]).flip(-1) * inputs).sum(-1)
        return self._emit(mixed, hidden), LongConvolutionCache(convolution, inputs)

    def _gates_and_values(self, hidden: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Output gates q, input gates k and values, (S, d, L) each."""
        output_gate, input_gate, value = (part.transpose(1, 2) for part in self._convolved(hidden))
        return output_gate, input_gate, value
