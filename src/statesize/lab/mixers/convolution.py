"""S4D, a mixer that is a convolution as long as the sequence."""

from __future__ import annotations

import math
from typing import Any, cast

import torch
from torch import Tensor, nn

from statesize.lab.mixers.config import ModelConfig
from statesize.lab.mixers.mixer import Mixer, State
from statesize.lab.mixers.s6 import spread_steps
from statesize.operators import Recurrence

_fft = cast("Any", torch.fft)


class S4D(Mixer):
    """T from x_t = Ā x_{t−1} + B̄ u_t, y_t = 2 Re C x_t, for each channel, the same at every input.

    Ā = exp(Δ A) and B̄ = (Ā − 1) / A with n / 2 complex modes A, one of each conjugate pair, so that the state holds
    n = key_size real numbers. All are learned; A starts at −1/2 + iπk for k = 0 … n/2 − 1 (S4D-Lin). There
    is no feed-through D u: the residual stream around the mixer is one.

    Gu et al., "On the Parameterization and Initialization of Diagonal State Space Models", NeurIPS 2022. Differs
    from the paper: no D, GELU or gated output; norm per head.

    Args:
        config: Shape of the model, of even key_size; Δ starts between `smallest_step` and `largest_step`.
    """

    kind = "s4d"

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config, [config.width])
        shape = (config.width, config.key_size // 2)
        self.log_step = nn.Parameter(torch.empty(config.width))
        self.log_rate = nn.Parameter(torch.empty(shape))
        self.frequency = nn.Parameter(torch.empty(shape))
        self.output_weight = nn.Parameter(torch.randn(*shape, 2) / math.sqrt(2))
        """C, real and imaginary part."""
        self.set_initial_values()

    def initial_values(self) -> dict[str, Tensor]:
        """First values of Δ and A."""
        width, modes = self.log_rate.shape
        return {
            "log_step": spread_steps(width, self.config.smallest_step, self.config.largest_step).log(),
            "log_rate": torch.full((width, modes), math.log(0.5)),
            "frequency": (math.pi * torch.arange(modes)).expand(width, -1),
        }

    def operator(self, hidden: Tensor) -> Recurrence:
        """T of every channel, the same for every sequence, of batch shape (sequence, channel)."""
        log_decay, B, C = self._discretised()
        shape = (hidden.shape[0], self.log_step.numel(), hidden.shape[1], -1)
        # Expanded, not copied: the memory is that of one position of one sequence.
        # One mode of each conjugate pair, whose sum is twice the real part.
        A, B, C = (part[:, None].expand(shape) for part in (log_decay.exp(), B, 2 * C))
        return Recurrence(A, B, C)

    def mixed_values(self, hidden: Tensor) -> Tensor:
        """The values of each channel after mixing, before the norm, by a convolution, (S, d, L, 1)."""
        inputs = self.values(hidden).squeeze(-1)
        log_decay, B, C = self._discretised()
        powers = (log_decay.unsqueeze(-1) * torch.arange(hidden.shape[1], device=hidden.device)).exp()
        kernel = 2 * ((C * B).unsqueeze(-2) @ powers).squeeze(-2).real
        return causal_convolution(kernel, inputs).unsqueeze(-1)

    def values(self, hidden: Tensor) -> Tensor:
        """The inputs of T: the convolved channels, (S, d, L, 1)."""
        return self._convolved(hidden)[0].transpose(1, 2).unsqueeze(-1)

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


def causal_convolution(kernel: Tensor, inputs: Tensor) -> Tensor:
    """y_t = Σ_s kernel_s u_{t−s} by the fast Fourier transform, O(L log L), (..., L)."""
    length = inputs.shape[-1]
    # As many zeros again keep the end of the sequence from wrapping around to its start.
    spectrum = _fft.rfft(kernel, 2 * length) * _fft.rfft(inputs, 2 * length)
    return _fft.irfft(spectrum, 2 * length)[..., :length]
