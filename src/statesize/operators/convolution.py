"""Causal convolutions: the same kernel at every position, alone or between gates."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor

from statesize.check import (
    broadcast_batch,
    require_finite,
    require_floating,
    require_length,
    require_rank,
    require_same_device,
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

    def weighted(self, weights: Tensor) -> GatedConvolution:
        """See `Operator.weighted`; the weights become an input gate."""
        gate = weights.to(self.dtype).expand(*self.batch_shape, -1)
        return GatedConvolution(self.kernel, gate, torch.ones_like(gate))

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


class GatedConvolution(TensorOperator):
    """y_t = output_gate_t Σ_s kernel_s input_gate_{t−s} u_{t−s}: T = Diag(output_gate) Conv(kernel) Diag(input_gate).

    Its own recurrence is a shift register of K − 1 gated inputs, its theoretical state-size. Gates that are not 0
    leave the rank of H_i alone and change its singular values. Batch dimensions have equal rank and broadcast where 1.

    Args:
        kernel: (..., K), real floating; taps beyond the length are never used.
        input_gate: (..., L).
        output_gate: (..., L).

    Raises:
        InputError: Wrong shapes or dtypes, or not finite.

    Example:
        >>> import torch
        >>> kernel, gate = torch.tensor([1.0, 0.5]), torch.tensor([4.0, 2.0, 1.0])
        >>> GatedConvolution(kernel, input_gate=gate, output_gate=torch.ones(3)).dense()
        tensor([[4., 0., 0.],
                [2., 2., 0.],
                [0., 1., 1.]])
    """

    _parts = (("kernel", 1), ("input_gate", 1), ("output_gate", 1))

    def __init__(self, kernel: Tensor, input_gate: Tensor, output_gate: Tensor) -> None:
        parts = {"kernel": kernel, "input_gate": input_gate, "output_gate": output_gate}
        for name, tensor in parts.items():
            require_floating(name, tensor)
        if not kernel.ndim:
            raise InputError("kernel must have shape (..., K), got a single number")
        for name in ("input_gate", "output_gate"):
            require_rank(name, parts[name], kernel.ndim, "(..., L)")
            require_length(name, parts[name], -1)
        if input_gate.shape[-1] != output_gate.shape[-1]:
            raise InputError(
                "input_gate and output_gate must have the same length, "
                f"got {shape(input_gate)} and {shape(output_gate)}"
            )
        require_same_device(parts)
        for name in ("input_gate", "output_gate"):
            require_finite(name, parts[name])
        common = torch.promote_types(torch.promote_types(kernel.dtype, input_gate.dtype), output_gate.dtype)
        batch_shape = broadcast_batch({name: tensor.shape[:-1] for name, tensor in parts.items()})
        require_finite("kernel", kernel)
        self.kernel = kernel.to(common)
        self._describe(self.kernel, input_gate.shape[-1], batch_shape)
        self.input_gate = input_gate.to(common)
        self.output_gate = output_gate.to(common)

    @property
    def _convolution(self) -> Convolution:
        plain = Convolution.__new__(Convolution)
        plain.kernel = self.kernel
        plain._describe(self.kernel, self.length, self.kernel.shape[:-1])
        return plain

    def dense(self) -> Tensor:
        """T, (..., L, L)."""
        return self.output_gate.unsqueeze(-1) * self._convolution.dense() * self.input_gate.unsqueeze(-2)

    def columns(self, first: int, last: int) -> Tensor:
        """See `Operator.columns`; the rest of T is not formed."""
        taps = self._convolution.columns(first, last)
        gated = self.output_gate[..., first:, None] * taps * self.input_gate[..., None, first:last]
        return gated.detach()

    def apply(self, inputs: Tensor) -> Tensor:
        """T u through the shift register."""
        return self.output_gate.unsqueeze(-1) * self._convolution.apply(self.input_gate.unsqueeze(-1) * inputs)

    def state_size(self) -> Tensor:
        """K − 1 at every position.

        Returns:
            (L,) int64.
        """
        return self._convolution.state_size()

    def weighted(self, weights: Tensor) -> GatedConvolution:
        """See `Operator.weighted`; it scales the input gate."""
        return type(self)(self.kernel, self.input_gate * weights.to(self.dtype), self.output_gate)
