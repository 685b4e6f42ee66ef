"""The definition: every singular value of every block, one decomposition a position."""

from __future__ import annotations

import torch
from torch import Tensor

from statesize.operators import Operator
from statesize.operators.validation import require_finite
from statesize.spectra.cut import Cut
from statesize.spectra.factorisation import singular_values
from statesize.spectra.spectrum import Spectrum


def dense_singular_values(operator: Operator, cut: Cut) -> Spectrum:
    """`torch.linalg.svdvals(T[i:, :i])` in a loop over i; O(L⁴) for all positions, any operator, differentiable.

    The bound is that of a backward stable decomposition (LAPACK Users' Guide, section 4.9), with the constant
    8 √max(rows, columns), relative to T as `operator.dense()` returns it.

    Args:
        operator: Any operator.
        cut: Which blocks.

    Returns:
        The spectrum, r = the largest min(rows, columns).
    """
    matrix = operator.dense()
    require_finite("T", matrix)
    r = cut.largest_rank()
    epsilon = torch.finfo(matrix.dtype).eps
    values: list[Tensor] = []
    bounds: list[Tensor] = []
    for i in cut.positions:
        sigma = singular_values(cut.block(matrix, i))
        values.append(torch.nn.functional.pad(sigma, (0, r - sigma.shape[-1])))
        bounds.append(8 * max(cut.rows(i), cut.columns(i)) ** 0.5 * epsilon * sigma[..., 0].detach())
    if not values:
        empty = matrix.new_zeros((*matrix.shape[:-2], 0))
        return Spectrum(empty[..., None], empty, cut.limits(matrix.device))
    return Spectrum(torch.stack(values, -2), torch.stack(bounds, -1), cut.limits(matrix.device))
