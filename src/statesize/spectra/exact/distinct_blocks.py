"""Convolutions: blocks that are equal are decomposed once."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor

from statesize.operators import Convolution, Operator
from statesize.spectra.cut import Cut
from statesize.spectra.exact.dense import block_spectrum
from statesize.spectra.spectrum import Spectrum


def distinct_blocks(operator: Operator, cut: Cut) -> Spectrum:
    """All singular values of a convolution, one decomposition for each shape that a block can have; differentiable.

    With its columns in reverse order, H_i of a kernel k is the Hankel matrix k_{1+r+c} of L − i rows and i columns,
    wherever it lies. So H_i and H_{L−i} are transposes of each other, windows of one size are all equal, and beyond
    the last tap K − 1 rows and columns are zero: of a short kernel no more than K − 1 blocks differ.

    Args:
        operator: A convolution.
        cut: Which blocks.

    Returns:
        The spectrum, r = the largest min(rows, columns).
    """
    kernel = cast("Convolution", operator).kernel
    last = kernel.shape[-1] - 1
    shapes: dict[tuple[int, int], int] = {}
    place: list[int] = []
    for i in cut.positions:
        one, other = max(1, min(cut.rows(i), last)), max(1, min(cut.columns(i), last))
        place.append(shapes.setdefault((max(one, other), min(one, other)), len(shapes)))
    r = cut.largest_rank()
    values: list[Tensor] = []
    bounds: list[Tensor] = []
    for rows, columns in shapes:
        block = block_spectrum(hankel_matrix(kernel, rows, columns)[..., None, :, :])
        values.append(torch.nn.functional.pad(block.values, (0, r - columns)))
        bounds.append(block.error_bound)
    limit = cut.limits(kernel.device)
    if not values:
        empty = kernel.new_zeros((*kernel.shape[:-1], 0))
        return Spectrum(empty[..., None], empty, limit)
    at = torch.tensor(place, dtype=torch.int64, device=kernel.device)
    return Spectrum(torch.cat(values, -2)[..., at, :], torch.cat(bounds, -1)[..., at], limit)


def hankel_matrix(kernel: Tensor, rows: int, columns: int) -> Tensor:
    """k_{1+r+c}, (..., rows, columns), of a kernel (..., K) that is zero from K on."""
    padded = torch.nn.functional.pad(kernel, (0, max(0, rows + columns - kernel.shape[-1])))
    device = kernel.device
    lag = 1 + torch.arange(rows, device=device)[:, None] + torch.arange(columns, device=device)
    return padded[..., lag]
