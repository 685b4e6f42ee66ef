"""Eliminating the first rows and columns of symmetric matrices, many at once and in large products."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

_linalg = cast("Any", torch.linalg)
# Rows that are factorised at once; all other work is products of matrices.
_BLOCK = 64
# Widths from which a symmetric product is faster in quarters, of which one is the transpose of another.
_QUARTERS = 128
# Of one factorisation or product, in units of eps and of Frobenius norms. Worst cases grow with the dimension; what is
# met in practice does not (Higham, Accuracy and Stability of Numerical Algorithms, sections 3.1 and 9.4).
ROUND_OFF = 8


@dataclass(frozen=True, eq=False)
class Eliminated:
    """Panels Y, Z (N, h, m) with Yᵀ Z = Rᵀ S⁻¹ R for the rows [S | R] that were eliminated."""

    left: Tensor  # Y
    right: Tensor  # Z; the same tensor as Y where S is definite
    positive: Tensor  # number of positive eigenvalues of S, (N,) int64
    logarithm: Tensor  # ln |det S|, (N,); 0 where S is indefinite, of which only the inertia is asked
    # The elimination is exact for a matrix within this distance (Frobenius norm), (N,); 0 where S is definite.
    lost: Tensor
    quarters: int

    def subtract_from(self, block: Tensor, rows: slice, first: int, second: int, sign: float) -> None:
        """Subtract sign · Y[:, first …]ᵀ Z[:, second …] of some of the N from square blocks (N', h', h') in place."""
        width = block.shape[-1]
        left, right = self.left[rows, :, first : first + width], self.right[rows, :, second : second + width]
        if first != second or width < self.quarters:
            block.baddbmm_(left.mT, right, alpha=-sign)
            return
        half = width // 2
        low, high = slice(0, half), slice(half, width)
        for one, other in ((low, low), (low, high), (high, high)):
            block[:, one, other].baddbmm_(left[..., one].mT, right[..., other], alpha=-sign)
        block[:, high, low] = block[:, low, high].mT


def eliminate_definite(rows: Tensor, width: int, block: int = _BLOCK, quarters: int = _QUARTERS) -> Eliminated:
    """Eliminate positive definite S of [S | R], (N, h, h + m), in place."""
    logarithm = rows.new_zeros(rows.shape[0])

    def factorise(low: int, high: int) -> None:
        factor = _definite_factor(rows[:, low:high, low:high])
        rows[:, low:high, high:] = _linalg.solve_triangular(factor, rows[:, low:high, high:], upper=False)
        logarithm.add_(factor.diagonal(0, -2, -1).log().sum(-1), alpha=2)

    _advance(rows, rows, 0, width, block, factorise)
    panel = rows[..., width:]
    none = torch.zeros_like(logarithm)
    return Eliminated(panel, panel, torch.full_like(none, width, dtype=torch.int64), logarithm, none, quarters)


def eliminate_indefinite(rows: Tensor, width: int, block: int = _BLOCK, quarters: int = _QUARTERS) -> Eliminated:
    """Eliminate symmetric S of [S | R], (N, h, h + m), in place, a block of rows at a time."""
    # A block of rows [D | U] is turned by the eigenvectors of D = Q Λ Qᵀ: W = Qᵀ U, and Wᵀ Λ⁻¹ W is taken from what is
    # left. Round-off is then that of one symmetric D + ΔD, of U and of the product, whose terms add up to at most
    # Σ_j ‖w_j‖²/|λ_j|; solving with D instead would lose ‖D‖ ‖D⁻¹U‖², which is more by D's condition number.
    solved = torch.empty_like(rows)
    positive = torch.zeros(rows.shape[0], dtype=torch.int64, device=rows.device)
    lost = rows.new_zeros(rows.shape[0])
    eps = torch.finfo(rows.dtype).eps

    def factorise(low: int, high: int) -> None:
        eigenvalues, Q = _linalg.eigh(rows[:, low:high, low:high])
        turned = Q.mT @ rows[:, low:high, high:]
        energies = turned.square().sum(-1)
        # S's own blocks enter `turned`, so this is also what the pivots to come have lost.
        size = energies.sum(-1).sqrt() + eigenvalues.abs().amax(-1)
        # An eigenvalue of 0 is moved by no more than what D has lost anyway.
        least = (eps * size).clamp(min=torch.finfo(rows.dtype).tiny)[:, None]
        eigenvalues = torch.where(eigenvalues.abs() < least, torch.copysign(least, eigenvalues), eigenvalues)
        rows[:, low:high, high:] = turned
        solved[:, low:high, high:] = turned / eigenvalues[..., None]
        positive.add_((eigenvalues > 0).sum(-1))
        lost.add_(size + (energies / eigenvalues.abs()).sum(-1), alpha=ROUND_OFF * eps)

    _advance(rows, solved, 0, width, block, factorise)
    return Eliminated(rows[..., width:], solved[..., width:], positive, torch.zeros_like(lost), lost, quarters)


def _advance(
    left: Tensor, right: Tensor, low: int, high: int, block: int, factorise: Callable[[int, int], None]
) -> None:
    """Eliminate rows low … high − 1: the first half, what it takes from the second by one product, the second half."""
    if high - low <= block:
        factorise(low, high)
        return
    middle = low + (high - low) // 2
    _advance(left, right, low, middle, block, factorise)
    left[:, middle:high, middle:].baddbmm_(left[:, low:middle, middle:high].mT, right[:, low:middle, middle:], alpha=-1)
    _advance(left, right, middle, high, block, factorise)


def _norm(matrix: Tensor) -> Tensor:
    return matrix.square().sum((-2, -1)).sqrt()


def _definite_factor(matrix: Tensor) -> Tensor:
    """Cholesky factor of matrices that are definite but for round-off, which is then made up for on the diagonal."""
    factor, failed = _linalg.cholesky_ex(matrix)
    if bool((failed != 0).any()):
        lift = ROUND_OFF * torch.finfo(matrix.dtype).eps * _norm(matrix) * (failed != 0)
        factor, _ = _linalg.cholesky_ex(matrix + torch.diag_embed(lift[:, None].expand(-1, matrix.shape[-1])))
    return factor
