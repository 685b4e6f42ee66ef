"""Convolutions: blocks that are equal are decomposed once (docs/engines.md, "Convolutions")."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

import torch
from torch import Tensor

from statesize.operators import Convolution, Operator
from statesize.spectra.cut import Cut
from statesize.spectra.engine import DOUBLE, OUTPUTS, Engine, largest_state
from statesize.spectra.exact.dense import block_spectrum, joined_spectra
from statesize.spectra.spectrum import Spectrum


class DistinctBlocksEngine(Engine):
    """All singular values of a convolution, one decomposition for each shape that a block can have; differentiable."""

    name = "distinct_blocks"
    outputs = frozenset(OUTPUTS)
    operators = "convolutions"
    windows = True
    squares = False
    cost = "O(L⁴), for K taps O(K⁴)"

    def supports(self, operator: Operator) -> bool:
        """Whether it is a convolution."""
        return isinstance(operator, Convolution)

    def blocks(self, operator: Operator, cut: Cut) -> Spectrum:
        """The spectrum, r = the largest min(rows, columns)."""
        # With its columns in reverse order, H_i of a kernel k is the Hankel matrix k_{1+r+c} of L − i rows and i
        # columns. So H_i and H_{L−i} are transposes of each other, windows of one size are all equal, and beyond the
        # last tap K − 1 rows and columns are zero: of a short kernel no more than K − 1 blocks differ.
        kernel = cast("Convolution", operator).kernel
        shapes = block_shapes(cut, kernel.shape[-1])
        distinct = {shape: place for place, shape in enumerate(dict.fromkeys(shapes))}
        spectra = [block_spectrum(hankel_matrix(kernel, *shape)[..., None, :, :]) for shape in distinct]
        spectrum = joined_spectra(spectra, cut, kernel.new_zeros((*kernel.shape[:-1], 0)))
        if not distinct:
            return spectrum
        at = torch.tensor([distinct[shape] for shape in shapes], dtype=torch.int64, device=kernel.device)
        return replace(spectrum, values=spectrum.values[..., at, :], error_bound=spectrum.error_bound[..., at])

    def footprint(self, operator: Operator, cut: Cut) -> int:
        """Some copies of one block, and all singular values."""
        r = min(cut.largest_rank(), largest_state(operator))
        return DOUBLE * (8 * r * cut.length + 8 * len(cut.positions) * cut.largest_rank())

    def least_bytes(self, operator: Operator, cut: Cut) -> int:
        """The largest block, the lags that it is read by and its copy in the decomposition; all singular values."""
        r = min(cut.largest_rank(), largest_state(operator))
        return DOUBLE * (3 * r**2 + len(cut.positions) * cut.largest_rank())


def block_shapes(cut: Cut, taps: int) -> list[tuple[int, int]]:
    """(rows, columns) at each position of what a kernel can make different from 0, the larger number first."""
    sides = [[max(1, min(side, taps - 1)) for side in (cut.rows(i), cut.columns(i))] for i in cut.positions]
    return [(max(pair), min(pair)) for pair in sides]


def hankel_matrix(kernel: Tensor, rows: int, columns: int) -> Tensor:
    """k_{1+r+c}, (..., rows, columns), of a kernel (..., K) that is zero from K on."""
    padded = torch.nn.functional.pad(kernel, (0, max(0, rows + columns - kernel.shape[-1])))
    device = kernel.device
    lag = 1 + torch.arange(rows, device=device)[:, None] + torch.arange(columns, device=device)
    return padded[..., lag]
