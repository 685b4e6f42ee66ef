"""What counts at some positions say about the positions in between."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

from statesize.check import require_finite
from statesize.operators import Operator
from statesize.spectra.cut import Cut
from statesize.spectra.exact.dense import block_spectrum


def spread_bounds(cut: Cut, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
    """Bounds (..., P, K) on ν_i = #{σ(H_i) > τ} at consecutive positions, each tightened by all others."""
    # Without one of its rows or columns, a matrix A has σ_{k+1}(A) ≤ σ_k ≤ σ_k(A) (Horn and Johnson, Topics in Matrix
    # Analysis, corollary 3.1.3), so its count at any absolute τ falls by 0 or 1. H_{i+1} is H_i without its first row
    # and with one more column, hence |ν_{i+1} − ν_i| ≤ 1. Under `past` it also lost its first column, hence −2 ≤
    # ν_{i+1} − ν_i ≤ 1; under `future` it also got one more row, hence −1 ≤ ν_{i+1} − ν_i ≤ 2.
    index = torch.arange(lower.shape[-2], device=lower.device)[:, None]
    rise = index * (1 if cut.future is None else 2)
    fall = index * (1 if cut.past is None else 2)
    lowest = torch.maximum(_highest(lower + fall) - fall, _highest((lower - rise).flip(-2)).flip(-2) + rise)
    highest = torch.minimum(rise - _highest(rise - upper), -_highest(-(upper + fall).flip(-2)).flip(-2) - fall)
    return lowest, highest


def _highest(bounds: Tensor) -> Tensor:
    """The largest up to each position."""
    return bounds.cummax(-2).values if bounds.shape[-2] else bounds


def shared_bounds(operator: Operator, cut: Cut, tolerances: Tensor) -> tuple[Tensor, Tensor]:
    """Bounds (..., M, K) at all positions between the first and last of a cut, from blocks that neighbours share."""
    # For i ≤ m ≤ k the core of rows and columns that H_i and H_k have in common, T[k:, :i], is a part of H_m, which is
    # a part of the hull T[i:, :k]. H_m has (m − i) + (k − m) rows and columns that the core lacks, so by interlacing
    # ν(core) ≤ ν_m ≤ min(ν(core) + k − i, ν(hull)). Under windows the core is T[k:i+h, k−w:i], the hull T[i:k+h,
    # i−w:k], and rows and columns are counted. No H_m has an entry on the diagonal of T, so the hull is taken with
    # zeros there and above. Positions ascend and differ; one T is held at a time.
    span = cut.positions[-1] - cut.positions[0] + 1 if cut.positions else 0
    lower = torch.zeros((*operator.batch_shape, span, tolerances.numel()), dtype=torch.int64, device=operator.device)
    upper = torch.full_like(lower, cut.length)
    for entry in itertools.product(*(range(size) for size in operator.batch_shape)):
        matrix = operator[entry].dense().detach()
        require_finite("T", matrix)
        for i, k in itertools.pairwise(cut.positions):
            core, hull = _core(matrix, cut, i, k), _hull(matrix, cut, i, k)
            least, most = _counts(core, tolerances)
            _, all_of_them = _counts(hull, tolerances)
            for m in range(i + 1, k):
                added = cut.rows(m) - core.shape[0] + cut.columns(m) - core.shape[1]
                lower[entry][m - cut.positions[0]] = least
                upper[entry][m - cut.positions[0]] = torch.minimum(most + added, all_of_them)
    return lower, upper


def _core(matrix: Tensor, cut: Cut, i: int, k: int) -> Tensor:
    return matrix[k : max(k, i + cut.rows(i)), min(i, k - cut.columns(k)) : i]


def _hull(matrix: Tensor, cut: Cut, i: int, k: int) -> Tensor:
    past = cut.columns(i)
    return matrix[i : k + cut.rows(k), i - past : k].tril(past - 1)


def _counts(block: Tensor, tolerances: Tensor) -> tuple[Tensor, Tensor]:
    """The certified bounds on ν of one block, (K,) each."""
    if not block.numel():
        none = torch.zeros(tolerances.shape, dtype=torch.int64, device=block.device)
        return none, none
    counts = block_spectrum(block[None]).counts(tolerances)
    return counts.lower[0], counts.upper[0]
