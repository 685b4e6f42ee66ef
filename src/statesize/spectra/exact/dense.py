"""The definition: every singular value of every block, one decomposition a position."""

from __future__ import annotations

import torch
from torch import Tensor

from statesize.check import require_finite
from statesize.operators import Operator
from statesize.spectra.bounds import denormal_error
from statesize.spectra.cut import Cut
from statesize.spectra.factorisation import singular_values
from statesize.spectra.spectrum import Spectrum

# Numbers in the blocks of one call.
_NUMBERS_AT_ONCE = 2**21


def dense_singular_values(operator: Operator, cut: Cut) -> Spectrum:
    """`torch.linalg.svdvals(T[i:, :i])` in a loop over i; O(L⁴) for all positions, any operator, differentiable.

    Blocks of a window on both sides have one shape, so that many go into one call. The bound is that of
    `block_spectrum`, relative to T as `operator.dense()` returns it.

    Args:
        operator: Any operator.
        cut: Which blocks.

    Returns:
        The spectrum, r = the largest min(rows, columns).
    """
    matrix = operator.dense()
    require_finite("T", matrix)
    r = cut.largest_rank()
    size = 1
    if cut.past is not None and cut.future is not None:
        size = max(1, _NUMBERS_AT_ONCE // max(1, cut.past * cut.future * matrix.shape[:-2].numel()))
    blocks: list[Spectrum] = []
    for first in range(0, len(cut.positions), size):
        positions = cut.positions[first : first + size]
        blocks.append(block_spectrum(torch.stack([cut.block(matrix, i) for i in positions], -3)))
    if not blocks:
        empty = matrix.new_zeros((*matrix.shape[:-2], 0))
        return Spectrum(empty[..., None], empty, cut.limits(matrix.device))
    values = [torch.nn.functional.pad(block.values, (0, r - block.values.shape[-1])) for block in blocks]
    bounds = [block.error_bound for block in blocks]
    return Spectrum(torch.cat(values, -2), torch.cat(bounds, -1), cut.limits(matrix.device))


def block_spectrum(blocks: Tensor) -> Spectrum:
    """`torch.linalg.svdvals` of given blocks.

    The bound is that of a backward stable decomposition (LAPACK Users' Guide, section 4.9), with the constant
    8 √max(rows, columns), relative to the blocks as they are; below the normal numbers no digit is certain.

    Args:
        blocks: (..., P, rows, columns), not empty.

    Returns:
        Their spectrum, r = min(rows, columns).
    """
    sigma = singular_values(blocks)
    rows, columns = blocks.shape[-2:]
    top = sigma[..., 0].detach()
    bound = 8 * max(rows, columns) ** 0.5 * torch.finfo(blocks.dtype).eps * top + denormal_error(top)
    limit = torch.full((blocks.shape[-3],), min(rows, columns), device=blocks.device)
    return Spectrum(sigma, bound, limit)
