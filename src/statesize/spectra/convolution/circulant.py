"""A bound on the norm of every H_i of a convolution."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor

_fft = cast("Any", torch.fft)
# Round-off of the transform, far below √N · log₂ N · eps.
_SLACK = 1e-10


def circulant_norm(kernel: Tensor) -> Tensor:
    """An upper bound on σ_1 of T[i:, :i] for all i, (...), T of the kernel k_1 … k_{L−1}, (..., L − 1)."""
    # All these blocks are parts of a circulant matrix of any order N ≥ L, because i − j is in 1 … L − 1 there. The norm
    # of that is max |DFT_N(k)|.
    spectrum: Tensor = _fft.rfft(kernel, power_of_two(kernel.shape[-1] + 1))
    return spectrum.abs().amax(-1) * (1 + _SLACK)


def power_of_two(least: int) -> int:
    """The smallest power of 2 that is not below a positive number: lengths that are transformed fast."""
    return 1 << (least - 1).bit_length()
