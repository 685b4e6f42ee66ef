"""Counts and entropies of any operator at every position, by halving the sequence."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

from statesize.operators import Operator
from statesize.operators.validation import require_finite
from statesize.spectra.certified import CertifiedBlocks
from statesize.spectra.cut import Cut
from statesize.spectra.elimination_tree import eliminate
from statesize.spectra.factorisation import corner_energies, singular_values

_linalg = cast("Any", torch.linalg)
# Below this width the halves are so small that calls cost more than arithmetic.
_LEAF = 32
# Of one factorisation or product, in units of eps and of Frobenius norms. Worst cases grow with the dimension; what is
# met in practice does not (Higham, Accuracy and Stability of Numerical Algorithms, sections 3.1 and 9.4).
_ROUND_OFF = 8


@dataclass(frozen=True, eq=False)
class PositionTree:
    """The blocks H_i of E operators as Schur complements that neighbouring positions share.

    For a range of positions, what all of them keep is eliminated from [[aI, T], [Tᵀ, cI]] once: the later rows for
    the first half of the range, the earlier columns for the second. What remains has half the size. The first
    elimination has the pivots aI and cI alone, so its products serve all shifts. 0.45 L³ operations a shift.

    Attributes:
        first: T inside the first half, strictly lower, (E, h, h).
        second: T inside the second half, (E, h, h).
        below: T from the first half to the second, (E, h, h).
        rows: below · belowᵀ.
        columns: belowᵀ · below.
    """

    first: Tensor
    second: Tensor
    below: Tensor
    rows: Tensor
    columns: Tensor

    @property
    def width(self) -> int:
        """Positions, 2h."""
        return 2 * self.first.shape[-1]

    @property
    def order(self) -> int:
        """Rows of T, 2h."""
        return self.width

    @property
    def error(self) -> Tensor:
        """T is taken as it is: 0, (E,)."""
        return self.first.new_zeros(self.first.shape[0])

    def at(self, index: Tensor) -> PositionTree:
        """Some of the operators, in the order of an index (m,)."""
        if index.shape[0] == self.first.shape[0]:
            return self
        return PositionTree(*(part[index] for part in (self.first, self.second, self.below, self.rows, self.columns)))

    def squared_norms(self) -> Tensor:
        """‖H_i‖_F² as a sum of squares, (E, 2h)."""
        return corner_energies(self._strict())

    def norm_bound(self) -> Tensor:
        """An upper bound on σ_1 of every H_i, (E,): the Schatten 4-norm of T without its diagonal."""
        left = self.first.mT @ self.first + self.columns
        right = self.second.mT @ self.second
        across = self.below.mT @ self.second
        fourth = sum(factor * part.square().sum((-2, -1)) for factor, part in ((1, left), (1, right), (2, across)))
        return torch.as_tensor(fourth).sqrt().sqrt()

    def spectra(self, group: Tensor, offset: Tensor) -> Tensor:
        """All singular values at chosen positions, one decomposition each.

        Args:
            group: Which operator, (m,).
            offset: The cut, (m,).

        Returns:
            (m, h), descending, zero-padded.
        """
        strict, h = self._strict(), self.first.shape[-1]
        found: list[Tensor] = []
        for entry, i in cast("list[list[int]]", cast("Any", torch.stack([group, offset], -1)).tolist()):
            sigma = singular_values(strict[entry, i:, :i])
            found.append(torch.nn.functional.pad(sigma, (0, h - sigma.shape[0])))
        return torch.stack(found)

    def rayleigh_quotients(self, steps: int = 6) -> Tensor:
        """A lower bound on σ_1 at every position, near it, by the power method on all of them at once.

        Args:
            steps: Products with Hᵀ H.

        Returns:
            (E, 2h).
        """
        strict = self._strict()
        position = torch.arange(self.width, device=strict.device)
        past = (position < position[:, None]).to(strict.dtype)
        vector = past / past.sum(-1, keepdim=True).clamp(min=1).sqrt()
        norm = strict.new_zeros(strict.shape[:2])
        for _ in range(steps):
            image = (vector @ strict.mT) * (1 - past)
            norm = torch.maximum(norm, image.square().sum(-1).sqrt())
            back = (image @ strict) * past
            size = back.square().sum(-1, keepdim=True).sqrt()
            vector = back / torch.where(size > 0, size, torch.ones_like(size))
        return norm

    def _strict(self) -> Tensor:
        upper = torch.cat([self.first, torch.zeros_like(self.below)], -1)
        return torch.cat([upper, torch.cat([self.below, self.second], -1)], -2)

    def counts(self, shift: Tensor) -> tuple[Tensor, Tensor]:
        """How many σ(H_i) exceed a threshold: the positive inertia of [[−τI, H], [Hᵀ, −τI]] (Sylvester).

        Args:
            shift: τ > 0, (E,).

        Returns:
            ν, (E, 2h) int64, exact for some threshold within the second result, (E, 2h), of τ.
        """
        positive, _, uncertainty = self._descend(-shift, -shift)
        return positive, uncertainty

    def log_determinants(self, shift: Tensor) -> Tensor:
        """φ_i(s) = ln det(I + H_iᵀ H_i / s²), (E, 2h).

        Args:
            shift: s > 0, (E,).

        Returns:
            φ.
        """
        _, logarithm, _ = self._descend(shift, -shift)
        return logarithm - 2 * self.first.shape[-1] * shift.log()[:, None]

    def _descend(self, a: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        E, h = self.first.shape[:2]
        eye = torch.eye(h, dtype=a.dtype, device=a.device)
        a_eye, c_eye = a[:, None, None] * eye, c[:, None, None] * eye
        # Nodes of a level are ordered by entry, then by position.
        P = torch.stack([a_eye, a_eye - self.rows / c[:, None, None]], 1).flatten(0, 1)
        X = torch.stack([self.first, self.second], 1).flatten(0, 1)
        C = torch.stack([c_eye - self.columns / a[:, None, None], c_eye], 1).flatten(0, 1)
        logarithm = (h * a.abs().log()).repeat_interleave(2)
        count = torch.zeros_like(logarithm, dtype=torch.int64)
        epsilon = _ROUND_OFF * torch.finfo(a.dtype).eps
        formed = self.below.square().sum((-2, -1)) / a.abs() + a.abs()
        uncertainty = (epsilon * formed).repeat_interleave(2)
        definite = bool((a > 0).all())
        while P.shape[-1] > _LEAF:
            P, X, C, more, logs, lost = _halve(P, X, C, definite)
            count = count.repeat_interleave(2) + more
            logarithm = logarithm.repeat_interleave(2) + logs
            uncertainty = uncertainty.repeat_interleave(2) + lost
        positive, logs, growth = eliminate(P, X, C)
        count, logarithm = count[:, None] + positive, logarithm[:, None] + logs
        uncertainty = uncertainty[:, None] + P.shape[-1] * torch.finfo(a.dtype).eps * growth
        return count.reshape(E, 2 * h), logarithm.reshape(E, 2 * h), uncertainty.reshape(E, 2 * h)


@torch.no_grad()
def tree_blocks(operator: Operator, cut: Cut) -> CertifiedBlocks:
    """Counts and entropies of any operator, whatever its rank; about 7 L² numbers are held for each batch entry.

    Args:
        operator: Any operator.
        cut: Which blocks, not windowed.

    Returns:
        The blocks; without gradients.
    """
    matrix = operator.dense()
    require_finite("T", matrix)
    return CertifiedBlocks(
        plant_tree(matrix.flatten(0, -3) if matrix.ndim > 2 else matrix[None]), operator.batch_shape, cut, cut.length
    )


def plant_tree(matrix: Tensor) -> PositionTree:
    """The tree of T, (E, L, L); L is padded to a multiple of a power of 2.

    Args:
        matrix: T; its diagonal does not matter.

    Returns:
        The tree; positions past L − 1 belong to the padding.
    """
    length = matrix.shape[-1]
    levels = max(1, math.ceil(math.log2(max(2, length) / _LEAF)))
    padded = -(-length // 2**levels) * 2**levels
    strict = torch.nn.functional.pad(matrix.tril(-1), (0, padded - length, 0, padded - length))
    h = padded // 2
    below = strict[..., h:, :h].contiguous()
    return PositionTree(
        strict[..., :h, :h].contiguous(),
        strict[..., h:, h:].contiguous(),
        below,
        below @ below.mT,
        below.mT @ below,
    )


def _halve(P: Tensor, X: Tensor, C: Tensor, definite: bool) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Both halves of every node: Schur complements, positive pivots, Σ ln |pivot| and what round-off may move."""
    h = P.shape[-1] // 2
    low, high = slice(0, h), slice(h, 2 * h)
    cross = X[:, high, low]
    # The first half loses the rows of the second, the second half the columns of the first.
    pivot = torch.cat([P[:, high, high], C[:, low, low]])
    border = torch.cat([torch.cat([P[:, high, low], cross], -1), torch.cat([C[:, low, high], cross.mT], -1)])
    if definite:
        sign = torch.ones(pivot.shape[0], 1, 1, dtype=P.dtype, device=P.device)
        sign[P.shape[0] :] = -1
        factor = _definite_factor(sign * pivot)
        half = _linalg.solve_triangular(factor, border, upper=False)
        taken = [sign * part for part in _corners(half, half, h)]
        logs = 2 * factor.diagonal(0, -2, -1).log().sum(-1)
        more, lost = torch.zeros_like(logs, dtype=torch.int64), torch.zeros_like(logs)
    else:
        more, singular = _inertia(pivot)
        logs = torch.zeros_like(singular, dtype=P.dtype)
        solved = _linalg.solve_ex(pivot, border).result
        taken = _corners(border, solved, h)
        size = solved.square().sum((-2, -1)).sqrt()
        scale = border.square().sum((-2, -1)).sqrt() + size * pivot.square().sum((-2, -1)).sqrt()
        lost = torch.where(singular, torch.inf, _ROUND_OFF * torch.finfo(P.dtype).eps * size * scale)
    nodes = P.shape[0]
    (first_11, first_12, first_22), (second_11, second_12, second_22) = (
        [part[half] for part in taken] for half in (slice(0, nodes), slice(nodes, None))
    )
    kept_P = torch.stack([P[:, low, low] - first_11, P[:, high, high] - second_22], 1)
    kept_X = torch.stack([X[:, low, low] - first_12, X[:, high, high] - second_12.mT], 1)
    kept_C = torch.stack([C[:, low, low] - first_22, C[:, high, high] - second_11], 1)
    kept = (part.flatten(0, 1) for part in (kept_P, kept_X, kept_C))
    gained = (torch.stack([part[:nodes], part[nodes:]], 1).flatten() for part in (more, logs, lost))
    return next(kept), next(kept), next(kept), next(gained), next(gained), next(gained)


def _corners(left: Tensor, right: Tensor, h: int) -> list[Tensor]:
    """The blocks (1, 1), (1, 2) and (2, 2) of the symmetric product leftᵀ right of panels of 2h columns."""
    first, second = left[..., :h].mT, left[..., h:].mT
    return [first @ right[..., :h], first @ right[..., h:], second @ right[..., h:]]


def _definite_factor(matrix: Tensor) -> Tensor:
    """Cholesky factor of matrices that are definite but for round-off, which is then made up for on the diagonal."""
    factor, failed = _linalg.cholesky_ex(matrix)
    if bool((failed != 0).any()):
        epsilon = _ROUND_OFF * torch.finfo(matrix.dtype).eps
        lift = epsilon * matrix.square().sum((-2, -1)).sqrt() * (failed != 0)
        factor, _ = _linalg.cholesky_ex(matrix + torch.diag_embed(lift[:, None].expand(-1, matrix.shape[-1])))
    return factor


def _inertia(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Positive eigenvalues by Bunch and Kaufman's factorisation, and whether a pivot was exactly 0."""
    factor, pivots, singular = _linalg.ldl_factor_ex(matrix)
    single = pivots > 0
    positive = ((factor.diagonal(0, -2, -1) > 0) & single).sum(-1)
    # Every 2×2 pivot has one eigenvalue of either sign.
    return positive + (~single).sum(-1) // 2, singular != 0
