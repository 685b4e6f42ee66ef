"""Causal convolutions with kernels as long as the sequence."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor

_fft = cast("Any", torch.fft)


def causal_convolution(kernel: Tensor, inputs: Tensor) -> Tensor:
    """y_t = Σ_s kernel_s u_{t−s} by the fast Fourier transform, O(L log L), (..., L)."""
    length = inputs.shape[-1]
    # As many zeros again keep the end of the sequence from wrapping around to its start.
    spectrum = _fft.rfft(kernel, 2 * length) * _fft.rfft(inputs, 2 * length)
    return _fft.irfft(spectrum, 2 * length)[..., :length]
