"""A convolution as long as the sequence, and attention over a window."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from statesize import Recurrence, SoftmaxAttention
from statesize.errors import InputError
from statesize.lab.mixers import HeadMixer, Mixer, ModelConfig, mixer
from statesize.lab.mixers.starts import spread_steps


@mixer("s4d")
class S4D(Mixer):
    """T from x_t = Ā x_{t−1} + B̄ u_t, y_t = 2 Re C x_t, for each channel, the same at every input.

    Ā = exp(Δ A) and B̄ = (Ā − 1) / A with n / 2 complex modes A, one of each conjugate pair, so that the state holds
    n = key_size real numbers; A starts at −1/2 + iπk (S4D-Lin, Gu et al., NeurIPS 2022).
    """

    kept = ("log_step", "log_rate", "frequency")

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config, [config.width])
        if config.key_size % 2:
            raise InputError(f"key_size must be even for 's4d', whose states come in pairs, got {config.key_size}.")
        shape = width, modes = config.width, config.key_size // 2
        self.log_step = nn.Parameter(spread_steps(config, width).log())
        self.log_rate = nn.Parameter(torch.full(shape, math.log(0.5)))
        self.frequency = nn.Parameter((math.pi * torch.arange(modes)).expand(width, -1).clone())
        self.output_weight = nn.Parameter(torch.randn(*shape, 2) / math.sqrt(2))
        """C, real and imaginary part."""

    def operator(self, hidden: Tensor) -> Recurrence:
        """T of every channel, the same for every sequence, of batch shape (sequence, channel)."""
        log_decay, B, C = self._discretised()
        shape = (hidden.shape[0], self.log_step.numel(), hidden.shape[1], -1)
        # One mode of each conjugate pair, whose sum is twice the real part.
        A, B, C = (part[:, None].expand(shape) for part in (log_decay.exp(), B, 2 * C))
        return Recurrence(A, B, C)

    def mixed_values(self, hidden: Tensor) -> Tensor:
        """The values of each channel after mixing, before the norm, by a convolution, (S, d, L, 1)."""
        inputs, length = self.values(hidden).squeeze(-1), hidden.shape[1]
        log_decay, B, C = self._discretised()
        powers = (log_decay.unsqueeze(-1) * torch.arange(length, device=hidden.device)).exp()
        kernel = 2 * ((C * B).unsqueeze(-2) @ powers).squeeze(-2).real
        # As many zeros again keep the end of the sequence from wrapping around to its start.
        spectrum = torch.fft.rfft(kernel, 2 * length) * torch.fft.rfft(inputs, 2 * length)
        return torch.fft.irfft(spectrum, 2 * length)[..., :length].unsqueeze(-1)

    def values(self, hidden: Tensor) -> Tensor:
        """The inputs of T: the convolved channels, (S, d, L, 1)."""
        return self.parts(hidden)[0].transpose(1, 2).unsqueeze(-1)

    def _discretised(self) -> tuple[Tensor, Tensor, Tensor]:
        """Logarithm of Ā, B̄ and C, complex (d, n / 2)."""
        modes = torch.complex(-self.log_rate.exp(), self.frequency)
        log_decay = self.log_step.exp().unsqueeze(-1) * modes
        return log_decay, torch.expm1(log_decay) / modes, torch.view_as_complex(self.output_weight)


@mixer("sliding")
class SlidingWindowAttention(HeadMixer):
    """Softmax attention over the last `config.window` tokens (Beltagy et al. 2020), with no convolution and no norm."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.window = config.window
        self.convolution, self.norm_weight = None, None

    def parts(self, hidden: Tensor) -> tuple[Tensor, ...]:
        """The input projected: queries, keys and values, (S, L, ·)."""
        return self._split(self.projection(hidden))

    def emit(self, mixed: Tensor, hidden: Tensor) -> Tensor:
        """Output projection of all channels, (..., d)."""
        return self.output_projection(mixed)

    def operator(self, hidden: Tensor) -> SoftmaxAttention:
        """T of every head at one input, of batch shape (sequence, head)."""
        query, key, _ = self.query_key_value(hidden)
        return SoftmaxAttention(query, key, self.key_size**-0.5, self.window)

    def mixed_values(self, hidden: Tensor) -> Tensor:
        """The values of each head after mixing, (S, H, L, d_v)."""
        position = torch.arange(hidden.shape[1], device=hidden.device)
        lag = position[:, None] - position
        return functional.scaled_dot_product_attention(*self.query_key_value(hidden), (lag >= 0) & (lag < self.window))
