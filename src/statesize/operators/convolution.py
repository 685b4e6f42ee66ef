"""Causal convolutions: the same kernel at every position."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

from statesize.check import refuse, whole_number
from statesize.operators.checked import checked_sizes
from statesize.operators.operator import TensorOperator


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
        _, batch = checked_sizes({"kernel": (kernel, "K")})
        steps = whole_number(length)
        # Positions are counted in 32 bits here and there in torch.
        if steps is None or not 1 <= steps < 2**31:
            refuse("length", "an integer in 1 … 2**31 - 1", length)
        self.kernel = kernel
        self._describe(kernel, steps, batch)
        self._state_size = torch.tensor(kernel.shape[-1] - 1, device=self.device).expand(steps)

    def dense(self) -> Tensor:
        """The Toeplitz matrix of the kernel, (..., L, L)."""
        return self._toeplitz(0, self.length)

    def columns(self, first: int, last: int) -> Tensor:
        """See `Operator.columns`; the rest of T is not formed."""
        return self._toeplitz(first, last).detach()

    def apply(self, inputs: Tensor) -> Tensor:
        """T u, one tap after another."""
        outputs = torch.zeros_like(self.kernel[..., :1, None] * inputs)
        for lag in range(min(self.kernel.shape[-1], self.length)):
            outputs = outputs + self.kernel[..., lag, None, None] * pad(inputs, (0, 0, lag, -lag))
        return outputs

    def _toeplitz(self, first: int, last: int) -> Tensor:
        row = torch.arange(first, self.length, device=self.device)
        lag = row[:, None] - torch.arange(first, last, device=self.device)
        taps = self.kernel.shape[-1]
        return torch.where((lag >= 0) & (lag < taps), self.kernel[..., lag.clamp(0, taps - 1)], 0)
