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
from statesize.spectra.symmetric_elimination import ROUND_OFF, eliminate_definite, eliminate_indefinite

# Below this width the halves are so small that calls cost more than arithmetic.
_LEAF = 32


@dataclass(frozen=True, eq=False)
class PositionTree:
    """The blocks H_i of E operators as Schur complements that neighbouring positions share.

    For a range of positions, what all of them keep is eliminated from [[aI, T], [Tᵀ, cI]] once: the later rows for
    the first half of the range, the earlier columns for the second. What remains has half the size. Where the range
    begins or ends the sequence, these have the pivots aI or cI alone, so their products serve all shifts.

    Attributes:
        first: T inside the first half, strictly lower, (E, h, h).
        second: T inside the second half, (E, h, h).
        below: T from the first half to the second, (E, h, h).
        rows: T[−w:, :−w] · T[−w:, :−w]ᵀ for w = h, h/2, … down to the leaves, (E, w, w) each.
        columns: T[w:, :w]ᵀ · T[w:, :w] likewise.
    """

    first: Tensor
    second: Tensor
    below: Tensor
    rows: tuple[Tensor, ...]
    columns: tuple[Tensor, ...]

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

    @property
    def summed_error(self) -> None:
        """No more is known than `error`."""
        return None

    def at(self, index: Tensor) -> PositionTree:
        """Some of the operators, in the order of an index (m,)."""
        if index.shape[0] == self.first.shape[0]:
            return self
        rows, columns = (tuple(part[index] for part in parts) for parts in (self.rows, self.columns))
        return PositionTree(self.first[index], self.second[index], self.below[index], rows, columns)

    def squared_norms(self) -> Tensor:
        """‖H_i‖_F² as a sum of squares, (E, 2h)."""
        return corner_energies(self._strict())

    def norm_bound(self) -> Tensor:
        """An upper bound on σ_1 of every H_i, (E,): the Schatten 4-norm of T without its diagonal."""
        left = self.first.mT @ self.first + self.columns[0]
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
        a_eye, c_eye = (torch.diag_embed(shift[:, None].expand(-1, h)) for shift in (a, c))
        # Nodes of a level are ordered by position, then by entry.
        P = torch.stack([a_eye, a_eye - self.rows[0] / c[:, None, None]])
        X = torch.stack([self.first, self.second])
        C = torch.stack([c_eye - self.columns[0] / a[:, None, None], c_eye])
        logarithm = (h * a.abs().log()).expand(2, E)
        count = torch.zeros_like(logarithm, dtype=torch.int64)
        epsilon = ROUND_OFF * torch.finfo(a.dtype).eps
        uncertainty = (epsilon * (self.below.square().sum((-2, -1)) / a.abs() + a.abs())).expand(2, E)
        definite = bool((a > 0).all())
        for columns, rows in zip(self.columns[1:], self.rows[1:], strict=True):
            P, X, C, more, logs, lost = _halve(P, X, C, definite)
            # What the outermost halves eliminate has the pivots aI or cI alone, and only such.
            h //= 2
            C[0] = c_eye[:, :h, :h] - columns / a[:, None, None]
            P[-1] = a_eye[:, :h, :h] - rows / c[:, None, None]
            logs[0] = logs[-1] = h * a.abs().log()
            for outermost, product in ((0, columns), (-1, rows)):
                lost[outermost] = epsilon * (product.diagonal(0, -2, -1).sum(-1) / a.abs() + a.abs())
            count = count.repeat_interleave(2, 0) + more
            logarithm = logarithm.repeat_interleave(2, 0) + logs
            uncertainty = uncertainty.repeat_interleave(2, 0) + lost
        found = eliminate(P.flatten(0, 1), X.flatten(0, 1), C.flatten(0, 1))
        positive, logs, growth = (part.view(-1, E, h) for part in found)
        uncertainty = uncertainty[..., None] + h * torch.finfo(a.dtype).eps * growth
        whole = (count[..., None] + positive, logarithm[..., None] + logs, uncertainty)
        counted, logged, moved = (part.transpose(0, 1).flatten(1) for part in whole)
        return counted, logged, moved


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
    columns, rows = [below.mT @ below], [below @ below.mT]
    for level in range(1, levels):
        # T[w:, :w] is T[2w:, :w] below T[w:2w, :w], and so from the other end.
        w = h >> level
        beside, above = strict[..., w : 2 * w, :w], strict[..., -w:, -2 * w : -w]
        columns.append(columns[-1][..., :w, :w] + beside.mT @ beside)
        rows.append(rows[-1][..., w:, w:] + above @ above.mT)
    first, second = strict[..., :h, :h].contiguous(), strict[..., h:, h:].contiguous()
    return PositionTree(first, second, below, tuple(rows), tuple(columns))


def _halve(P: Tensor, X: Tensor, C: Tensor, definite: bool) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Both halves of every node (K, E, 2h, 2h), but for what the outermost two of the 2K eliminate.

    Args:
        P: Rows, (K, E, 2h, 2h).
        X: Rows by columns.
        C: Columns.
        definite: Whether P and −C are positive definite.

    Returns:
        Schur complements P, X, C (2K, E, h, h), positive pivots, Σ ln |pivot| (definite only) and what round-off may
        move, (2K, E); the first node's C and the last one's P are as they were.
    """
    K, E, h = P.shape[0], P.shape[1], P.shape[-1] // 2
    low, high = slice(0, h), slice(h, 2 * h)
    # The first half loses the rows of the second, the second half the columns of the first.
    inner = (K - 1) * E
    first, second = slice(0, inner), slice(inner, None)
    panel = P.new_empty(2 * inner, h, 3 * h)
    rows, columns = (panel[part].view(K - 1, E, h, 3 * h) for part in (first, second))
    rows[..., :h], rows[..., h : 2 * h], rows[..., 2 * h :] = (
        P[1:, :, high, high],
        P[1:, :, high, low],
        X[1:, :, high, low],
    )
    columns[..., :h], columns[..., h : 2 * h] = C[:-1, :, low, low], C[:-1, :, low, high]
    columns[..., 2 * h :] = X[:-1, :, high, low].mT
    if definite:
        columns[..., :h].neg_()
    taken = eliminate_definite(panel, h) if definite else eliminate_indefinite(panel, h)
    pad = torch.nn.functional.pad
    kept = [torch.stack([part[..., low, low], part[..., high, high]], 1) for part in (P, X, C)]
    for entry in range(E):
        (P_first, P_second), (X_first, X_second), (C_first, C_second) = (
            (part[1:, 0, entry], part[:-1, 1, entry]) for part in kept
        )
        these, those = (slice(part.start + entry, part.stop, E) for part in (first, second))
        taken.subtract_from(P_first, these, 0, 0, 1.0)
        taken.subtract_from(X_first, these, 0, h, 1.0)
        taken.subtract_from(C_first, these, h, h, 1.0)
        sign = -1.0 if definite else 1.0
        taken.subtract_from(C_second, those, 0, 0, sign)
        # The second half's rows come first in X, and last in what is taken.
        taken.subtract_from(X_second, those, h, 0, sign)
        taken.subtract_from(P_second, those, h, h, sign)
    gained = (
        torch.stack([pad(part[first].view(K - 1, E), (0, 0, 1, 0)), pad(part[second].view(K - 1, E), (0, 0, 0, 1))], 1)
        for part in (taken.positive, taken.logarithm, taken.lost)
    )
    positive, logarithm, lost = (part.flatten(0, 1) for part in gained)
    kept_P, kept_X, kept_C = (part.flatten(0, 1) for part in kept)
    return kept_P, kept_X, kept_C, positive, logarithm, lost
