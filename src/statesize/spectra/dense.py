"""The definition: every singular value of every block, one decomposition a position."""

from __future__ import annotations

import torch
from torch import Tensor

from statesize.operators import Operator
from statesize.operators.validation import require_finite
from statesize.spectra.cut import Cut
from statesize.spectra.factorisation import singular_values
from statesize.spectra.spectrum import Spectrum

# Numbers in the blocks of one call.
_NUMBERS_AT_ONCE = 2**21


def dense_singular_values(operator: Operator, cut: Cut) -> Spectrum:
    """`torch.linalg.svdvals(T[i:, :i])` in a loop over i; O(L⁴) for all positions, any operator, differentiable.

    Blocks of a window on both sides have one shape, so that many go into one call.

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
    equal = cut.past is not None and cut.future is not None
    size = max(1, _NUMBERS_AT_ONCE // max(1, r * r * matrix.shape[:-2].numel())) if equal else 1
    values: list[Tensor] = []
    bounds: list[Tensor] = []
    for first in range(0, len(cut.positions), size):
        positions = cut.positions[first : first + size]
        sigma = singular_values(torch.stack([cut.block(matrix, i) for i in positions], -3))
        values.append(torch.nn.functional.pad(sigma, (0, r - sigma.shape[-1])))
        longest = max(cut.rows(positions[0]), cut.columns(positions[0]))
        bounds.append(8 * longest**0.5 * epsilon * sigma[..., 0].detach())
    if not values:
        empty = matrix.new_zeros((*matrix.shape[:-2], 0))
        return Spectrum(empty[..., None], empty, cut.limits(matrix.device))
    return Spectrum(torch.cat(values, -2), torch.cat(bounds, -1), cut.limits(matrix.device))
