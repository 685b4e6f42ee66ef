"""A convolution as long as the sequence, and attention over a window."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from statesize import Recurrence, SoftmaxAttention
from statesize.errors import InputError
from statesize.lab.mixers import HeadMixer, Mixer, ModelConfig, mixer
from statesize.lab.mixers.base import State
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

    def initial_state(self, batch: int) -> State:
        """Zeros, complex (S, d, n / 2)."""
        weight = self.projection.weight
        return (weight.new_zeros(batch, *self.log_rate.shape, dtype=weight.dtype.to_complex()),)

    def advance(self, parts: tuple[Tensor, ...], hidden: Tensor, state: State) -> tuple[Tensor, State]:
        """One token, (S, d), and the next state."""
        log_decay, B, C = self._discretised()
        held = log_decay.exp() * state[0] + B * parts[0].unsqueeze(-1)
        return 2 * (C * held).sum(-1).real, (held,)

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

    def initial_cache(self, batch: int) -> State:
        """No keys and no values, (S, H, 0, n) and (S, H, 0, d_v)."""
        sizes = self.key_size, self.value_size
        return tuple(self.projection.weight.new_zeros(batch, self.heads, 0, size) for size in sizes)

    def step(self, hidden: Tensor, cache: State) -> tuple[Tensor, State]:
        """One token of every sequence, (S, d), and the keys and values that the next one sees."""
        query, *new = (self.by_head(part)[:, :, None] for part in self.parts(hidden))
        keys, values = (torch.cat(pair, dim=2) for pair in zip(cache, new, strict=True))
        mixed = functional.scaled_dot_product_attention(query, keys, values)
        first = max(0, keys.shape[2] + 1 - self.window)
        return self.emit(mixed.flatten(1), hidden), (keys[:, :, first:], values[:, :, first:])

    def advance(self, parts: tuple[Tensor, ...], hidden: Tensor, state: State) -> tuple[Tensor, State]:
        """Not used: `step` keeps the window itself."""
        raise NotImplementedError

    def cache_bytes(self, length: int) -> int:
        """Bytes that the cache of `step` holds of one sequence at its end, of at most window − 1 tokens."""
        return super().cache_bytes(min(length, self.window - 1))
