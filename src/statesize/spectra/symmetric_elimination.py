"""Eliminating the first rows and columns of symmetric matrices, many at once and in large products."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

_linalg = cast("Any", torch.linalg)
# Rows that are factorised at once; the rest of the work is products of matrices.
_BLOCK = 64
# Widths from which it pays to compute a symmetric product in quarters, of which one is the transpose of another.
_QUARTERS = 128
# Of one factorisation or product, in units of eps and of Frobenius norms. Worst cases grow with the dimension; what is
# met in practice does not (Higham, Accuracy and Stability of Numerical Algorithms, sections 3.1 and 9.4).
ROUND_OFF = 8


@dataclass(frozen=True, eq=False)
class Eliminated:
    """Panels Y, Z (N, h, m) with Yᵀ Z = Rᵀ S⁻¹ R for the rows [S | R] that were eliminated.

    Attributes:
        left: Y.
        right: Z; the same tensor as Y where S is definite.
        positive: Number of positive eigenvalues of S, (N,) int64.
        logarithm: ln |det S|, (N,); 0 where S is indefinite, of which only the inertia is asked.
        lost: The elimination is exact for a matrix within this distance (Frobenius norm), (N,); 0 where S is definite.
    """

    left: Tensor
    right: Tensor
    positive: Tensor
    logarithm: Tensor
    lost: Tensor

    def subtract_from(self, block: Tensor, rows: slice, first: int, second: int, sign: float) -> None:
        """Subtract sign · Y[:, first …]ᵀ Z[:, second …] from square blocks in place.

        Args:
            block: (N', h', h'), views allowed.
            rows: Which of the N.
            first: Where the columns of Y begin; as many as `block` is wide.
            second: Where the columns of Z begin; if it is the same, the product is symmetric.
            sign: 1 or −1.
        """
        width = block.shape[-1]
        left, right = self.left[rows, :, first : first + width], self.right[rows, :, second : second + width]
        if first != second or width < _QUARTERS:
            block.baddbmm_(left.mT, right, alpha=-sign)
            return
        half = width // 2
        low, high = slice(0, half), slice(half, width)
        for one, other in ((low, low), (low, high), (high, high)):
            block[:, one, other].baddbmm_(left[..., one].mT, right[..., other], alpha=-sign)
        block[:, high, low] = block[:, low, high].mT


def eliminate_definite(rows: Tensor, width: int) -> Eliminated:
    """Eliminate positive definite S, in place.

    Args:
        rows: [S | R], (N, h, h + m); overwritten.
        width: h.

    Returns:
        The panels and ln det S.
    """
    logarithm = rows.new_zeros(rows.shape[0])

    def factorise(low: int, high: int) -> None:
        factor = _definite_factor(rows[:, low:high, low:high])
        rows[:, low:high, high:] = _linalg.solve_triangular(factor, rows[:, low:high, high:], upper=False)
        logarithm.add_(factor.diagonal(0, -2, -1).log().sum(-1), alpha=2)

    def advance(low: int, high: int) -> None:
        if high - low <= _BLOCK:
            factorise(low, high)
            return
        middle = low + (high - low) // 2
        advance(low, middle)
        done = rows[:, low:middle, middle:]
        rows[:, middle:high, middle:].baddbmm_(done[..., : high - middle].mT, done, alpha=-1)
        advance(middle, high)

    advance(0, width)
    panel = rows[..., width:]
    none = torch.zeros_like(logarithm)
    return Eliminated(panel, panel, torch.full_like(none, width, dtype=torch.int64), logarithm, none)


def eliminate_indefinite(rows: Tensor, width: int) -> Eliminated:
    """Eliminate symmetric S, in place, with pivoting inside blocks of rows only.

    A block that is close to singular makes large numbers; what their round-off may change is counted in `lost`.

    Args:
        rows: [S | R], (N, h, h + m); overwritten.
        width: h.

    Returns:
        The panels, the inertia of S and the distance.
    """
    solved = torch.empty_like(rows)
    positive = torch.zeros(rows.shape[0], dtype=torch.int64, device=rows.device)
    lost = rows.new_zeros(rows.shape[0])

    def factorise(low: int, high: int) -> None:
        block, border = rows[:, low:high, low:high], rows[:, low:high, high:]
        more, singular = _inertia(block)
        found = _linalg.solve_ex(block, border).result
        solved[:, low:high, high:] = found
        positive.add_(more)
        size = _norm(found)
        # S's own blocks enter `border`, so this is also what the pivots to come have lost.
        change = ROUND_OFF * torch.finfo(rows.dtype).eps * size * (_norm(border) + size * _norm(block))
        lost.add_(torch.where(singular, torch.inf, change))

    def advance(low: int, high: int) -> None:
        if high - low <= _BLOCK:
            factorise(low, high)
            return
        middle = low + (high - low) // 2
        advance(low, middle)
        left = rows[:, low:middle, middle:high]
        rows[:, middle:high, middle:].baddbmm_(left.mT, solved[:, low:middle, middle:], alpha=-1)
        advance(middle, high)

    advance(0, width)
    return Eliminated(rows[..., width:], solved[..., width:], positive, torch.zeros_like(lost), lost)


def _norm(matrix: Tensor) -> Tensor:
    return matrix.square().sum((-2, -1)).sqrt()


def _definite_factor(matrix: Tensor) -> Tensor:
    """Cholesky factor of matrices that are definite but for round-off, which is then made up for on the diagonal."""
    factor, failed = _linalg.cholesky_ex(matrix)
    if bool((failed != 0).any()):
        lift = ROUND_OFF * torch.finfo(matrix.dtype).eps * _norm(matrix) * (failed != 0)
        factor, _ = _linalg.cholesky_ex(matrix + torch.diag_embed(lift[:, None].expand(-1, matrix.shape[-1])))
    return factor


def _inertia(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Positive eigenvalues by Bunch and Kaufman's factorisation, and whether a pivot was exactly 0."""
    factor, pivots, singular = _linalg.ldl_factor_ex(matrix)
    single = pivots > 0
    positive = ((factor.diagonal(0, -2, -1) > 0) & single).sum(-1)
    # Every 2×2 pivot has one eigenvalue of either sign.
    return positive + (~single).sum(-1) // 2, singular != 0
