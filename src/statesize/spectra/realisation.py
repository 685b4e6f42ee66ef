"""Norms of convolutions from the transform of their kernels."""

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
    spectrum: Tensor = _fft.rfft(kernel, 1 << kernel.shape[-1].bit_length())
    return spectrum.abs().amax(-1) * (1 + _SLACK)
