"""Causal convolutions: the same kernel at every position."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor

from statesize.check import (
    require_finite,
    require_floating,
    require_length,
    shape,
    whole_number,
)
from statesize.errors import InputError
from statesize.operators.operator import TensorOperator

_fft = cast("Any", torch.fft)

# Positions are counted in 32 bits here and there in torch.
_LONGEST = 2**31 - 1


class Convolution(TensorOperator):
    """A causal convolution, y_t = Σ_s kernel_s u_{t−s}, so T[i, j] = kernel[i − j].

    Its own recurrence is a shift register of K − 1 inputs, its theoretical state-size.

    Args:
        kernel: (..., K), real floating; taps beyond `length` are never used.
        length: Sequence length L, below 2³¹.

    Raises:
        InputError: Wrong shape, dtype or length, or not finite.

    Example:
        >>> import torch
        >>> Convolution(torch.tensor([1.0, 0.5]), length=3).dense()
        tensor([[1.0000, 0.0000, 0.0000],
                [0.5000, 1.0000, 0.0000],
                [0.0000, 0.5000, 1.0000]])
    """

    _parts = (("kernel", 1),)

    def __init__(self, kernel: Tensor, length: int) -> None:
        require_floating("kernel", kernel)
        if kernel.ndim < 1:
            raise InputError(f"kernel must have shape (..., K), got {shape(kernel)}")
        require_length("kernel", kernel, -1)
        steps = whole_number(length)
        if steps is None or not 1 <= steps <= _LONGEST:
            raise InputError(f"length must be an integer in 1 … {_LONGEST}, got {length!r}")
        require_finite("kernel", kernel)
        self.kernel = kernel
        self._describe(kernel, steps, kernel.shape[:-1])

    def dense(self) -> Tensor:
        """The Toeplitz matrix of the kernel.

        Returns:
            T, (..., L, L).
        """
        return self._toeplitz(0, self.length)

    def columns(self, first: int, last: int) -> Tensor:
        """See `Operator.columns`; the rest of T is not formed."""
        return self._toeplitz(first, last).detach()

    def apply(self, inputs: Tensor) -> Tensor:
        """T u through the shift register."""
        taps = self.kernel.shape[-1]
        outputs: list[Tensor] = []
        for t in range(self.length):
            register = inputs[..., max(0, t + 1 - taps) : t + 1, :].flip(-2)
            outputs.append((self.kernel[..., : register.shape[-2], None] * register).sum(-2))
        return torch.stack(outputs, -2)

    def state_size(self) -> Tensor:
        """K − 1 at every position.

        Returns:
            (L,) int64.
        """
        return torch.full((self.length,), self.kernel.shape[-1] - 1, device=self.device)

    def _toeplitz(self, first: int, last: int) -> Tensor:
        row = torch.arange(first, self.length, device=self.device)
        lag = row[:, None] - torch.arange(first, last, device=self.device)
        taps = self.kernel.shape[-1]
        inside = (lag >= 0) & (lag < taps)
        return torch.where(inside, self.kernel[..., lag.clamp(0, taps - 1)], 0)


def causal_convolution(kernel: Tensor, inputs: Tensor) -> Tensor:
    """y_t = Σ_s kernel_s u_{t−s} by the fast Fourier transform, O(L log L), (..., L)."""
    length = inputs.shape[-1]
    # As many zeros again keep the end of the sequence from wrapping around to its start.
    spectrum = _fft.rfft(kernel, 2 * length) * _fft.rfft(inputs, 2 * length)
    return _fft.irfft(spectrum, 2 * length)[..., :length]
