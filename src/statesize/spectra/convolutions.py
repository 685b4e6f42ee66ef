"""Hankel symmetry: of a convolution, half of the positions of a shorter one tell all."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor

from statesize.operators import Convolution
from statesize.spectra.cut import Cut


def folded(convolution: Convolution, cut: Cut) -> tuple[Convolution, Cut, Tensor]:
    """A shorter convolution, the positions up to its middle at which blocks differ, and which of them stands where."""
    # With its columns in reverse order, H_i of a kernel k is the Hankel matrix k_{1+r+c} of L − i rows and i columns,
    # so H_{L−i} = H_iᵀ; and if k_m is the last tap that is not 0, at most the first m rows and columns are not 0.
    kernel = convolution.kernel[..., : cut.length]
    taps = kernel.detach().reshape(-1, kernel.shape[-1]).any(0).nonzero()
    length = min(cut.length, 2 * max(1, int(taps.max()) if taps.numel() else 0))
    nearest = torch.tensor([min(i, cut.length - i, length // 2) for i in cut.positions], dtype=torch.int64)
    positions, index = cast("tuple[Tensor, Tensor]", nearest.unique(return_inverse=True))
    return Convolution(kernel[..., :length], length), Cut(length, tuple(positions.tolist())), index  # pyright: ignore[reportUnknownArgumentType]
