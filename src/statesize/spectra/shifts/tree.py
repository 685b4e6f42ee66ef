"""Counts and log-determinants of any operator at every position, by halving the sequence.

For a range of positions, what all of them keep is eliminated from [[aI, T], [Tᵀ, cI]] once: the later rows for the
first half of the range, the earlier columns for the second. What remains has half the size. Where the range begins or
ends the sequence, these have the pivots aI or cI alone, so their products serve all shifts (docs/engines.md, "Counts").
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

from statesize.spectra.bounds import fourth_root
from statesize.spectra.factorisation import corner_energies, singular_values
from statesize.spectra.shifts.elimination_tree import SIZE_ERROR, eliminate
from statesize.spectra.shifts.largest_values import largest_at
from statesize.spectra.shifts.symmetric_elimination import ROUND_OFF, eliminate_definite, eliminate_indefinite

LEAF = 32
"""Width below which the halves are so small that calls cost more than arithmetic."""
# How close bounds on σ_1 are brought, and in how many steps at most.
_CLOSE, _STEPS = 1e-4, 12


@dataclass(frozen=True, eq=False)
class PositionTree:
    """The blocks H_i of E operators as Schur complements that neighbouring positions share."""

    first: Tensor  # T inside the first half, strictly lower, (E, h, h)
    second: Tensor  # T inside the second half, (E, h, h)
    below: Tensor  # T from the first half to the second, (E, h, h)
    rows: tuple[Tensor, ...]  # T[−w:, :−w] · T[−w:, :−w]ᵀ for w = h, h/2, … down to the leaves, (E, w, w) each
    columns: tuple[Tensor, ...]  # T[w:, :w]ᵀ · T[w:, :w] likewise
    # The first position of those that counts and log-determinants are needed of, and one past the last; what is given
    # for the others means nothing.
    needed: tuple[int, int] | None = None
    # A bound on σ_1 of every H_i where a closer one is known than would be computed, (E,).
    known_bound: Tensor | None = None

    @property
    def width(self) -> int:
        """Positions, 2h."""
        return 2 * self.first.shape[-1]

    @property
    def rounds(self) -> int:
        """An evaluation serves all positions, and costs as much as the singular values of many."""
        return 12

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
        """Some of the operators, in the order of an index (m,), in which numbers may repeat."""
        if torch.equal(index, torch.arange(self.first.shape[0], device=index.device)):
            return self
        rows, columns = (tuple(part[index] for part in parts) for parts in (self.rows, self.columns))
        known = None if self.known_bound is None else self.known_bound[index]
        return PositionTree(self.first[index], self.second[index], self.below[index], rows, columns, self.needed, known)

    def squared_norms(self) -> Tensor:
        """‖H_i‖_F² as a sum of squares, (E, 2h)."""
        return corner_energies(self._strict())

    def norm_bound(self) -> Tensor:
        """An upper bound on σ_1 of every H_i, (E,): the Schatten 4-norm of T without its diagonal, or the known one."""
        if self.known_bound is not None:
            return self.known_bound
        left = self.first.mT @ self.first + self.columns[0]
        right = self.second.mT @ self.second
        across = self.below.mT @ self.second
        fourth = sum(factor * part.square().sum((-2, -1)) for factor, part in ((1, left), (1, right), (2, across)))
        return fourth_root(torch.as_tensor(fourth))

    def spectra(self, group: Tensor, offset: Tensor) -> Tensor:
        """All singular values at chosen positions (m,), one decomposition each, (m, h), descending, zero-padded."""
        strict, h = self._strict(), self.first.shape[-1]
        spectra: list[Tensor] = []
        for entry, i in cast("list[list[int]]", cast("Any", torch.stack([group, offset], -1)).tolist()):
            sigma = singular_values(strict[entry, i:, :i])
            spectra.append(torch.nn.functional.pad(sigma, (0, h - sigma.shape[0])))
        return torch.stack(spectra)

    def largest(self) -> tuple[Tensor, Tensor]:
        """σ_1 of every position between two numbers, (E, 2h); the upper is infinite where T has negative entries."""
        later = torch.arange(1, self.width, device=self.first.device)
        low, high = self.first.new_zeros(2, self.first.shape[0], self.width)
        for entry, strict in enumerate(self._strict()):
            low[entry, 1:], high[entry, 1:] = largest_at(strict, later, _CLOSE, _STEPS)
        return low, high

    def _strict(self) -> Tensor:
        upper = torch.cat([self.first, torch.zeros_like(self.below)], -1)
        return torch.cat([upper, torch.cat([self.below, self.second], -1)], -2)

    def counts(self, shift: Tensor) -> tuple[Tensor, Tensor]:
        """How many σ(H_i) exceed τ, (E, 2h) int64, exact for some threshold within the second result, (E, 2h), of τ."""
        # The positive inertia of [[−τI, H], [Hᵀ, −τI]] (Sylvester).
        positive, _, uncertainty = self._descend(-shift, -shift)
        return positive, uncertainty

    def log_determinants(self, shift: Tensor) -> Tensor:
        """φ_i(s) = ln det(I + H_iᵀ H_i / s²), (E, 2h), for s > 0, (E,)."""
        _, logarithm, _ = self._descend(shift, -shift)
        return logarithm - 2 * self.first.shape[-1] * shift.log()[:, None]

    def _descend(self, a: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        E, h = self.first.shape[:2]
        first, last = self.needed or (0, self.width)
        a_eye, c_eye = (torch.diag_embed(shift[:, None].expand(-1, h)) for shift in (a, c))
        # Nodes of a level are ordered by position, then by entry; those from `begin` to `end` are needed.
        begin, end = first // h, -(-last // h)
        P = torch.stack([a_eye, a_eye - self.rows[0] / c[:, None, None]][begin:end])
        X = torch.stack([self.first, self.second][begin:end])
        C = torch.stack([c_eye - self.columns[0] / a[:, None, None], c_eye][begin:end])
        logarithm = (h * a.abs().log()).expand(end - begin, E)
        count = torch.zeros_like(logarithm, dtype=torch.int64)
        epsilon = ROUND_OFF * torch.finfo(a.dtype).eps
        uncertainty = (epsilon * _formed(self.columns[0], a)).expand(end - begin, E)
        definite = bool((a > 0).all())
        for columns, rows in zip(self.columns[1:], self.rows[1:], strict=True):
            h //= 2
            parents = torch.arange(first // h, -(-last // h), device=a.device) // 2 - begin
            begin, end = first // h, -(-last // h)
            total = self.width // h
            P, X, C, more, logs, lost = _halve(P, X, C, definite, begin, end, total)
            # What the outermost halves eliminate has the pivots aI or cI alone, and only such.
            if begin == 0:
                C[0] = c_eye[:, :h, :h] - columns / a[:, None, None]
                logs[0], lost[0] = h * a.abs().log(), epsilon * _formed(columns, a)
            if end == total:
                P[-1] = a_eye[:, :h, :h] - rows / c[:, None, None]
                logs[-1], lost[-1] = h * a.abs().log(), epsilon * _formed(rows, a)
            count, logarithm = count[parents] + more, logarithm[parents] + logs
            uncertainty = uncertainty[parents] + lost
        eliminated = eliminate(P.flatten(0, 1), X.flatten(0, 1), C.flatten(0, 1))
        positive, logs, size = (part.view(end - begin, E, h) for part in eliminated)
        uncertainty = uncertainty[..., None] + SIZE_ERROR * torch.finfo(a.dtype).eps * size
        whole = (count[..., None] + positive, logarithm[..., None] + logs, uncertainty)
        kept = slice(first - begin * h, last - begin * h)
        beside = (first, self.width - last)
        counted, logged, moved = (
            torch.nn.functional.pad(part.transpose(0, 1).flatten(1)[:, kept], beside) for part in whole
        )
        return counted, logged, moved


def _formed(product: Tensor, shift: Tensor) -> Tensor:
    """The size of what Tᵀ T / |shift| + |shift| is made of, (E,), from the trace of the product."""
    return product.diagonal(0, -2, -1).sum(-1) / shift.abs() + shift.abs()


def plant_tree(matrix: Tensor, leaf: int = LEAF) -> PositionTree:
    """The tree of T, (E, L, L), whose diagonal does not matter; positions past L − 1 belong to the padding."""
    length = matrix.shape[-1]
    levels = max(1, math.ceil(math.log2(max(2, length) / leaf)))
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


def _halve(
    P: Tensor, X: Tensor, C: Tensor, definite: bool, begin: int, end: int, total: int
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Halves begin … end − 1 of a level's total, of nodes (K, E, 2h, 2h), but for what the outermost eliminate."""
    # P rows, X rows by columns, C columns; definite: P and −C are positive definite. Results: Schur complements P, X, C
    # (end − begin, E, h, h), positive pivots, Σ ln |pivot| (definite only) and what round-off may move, (end − begin,
    # E); C of half 0 and P of the last half stay as they are.
    E, h = P.shape[1], P.shape[-1] // 2
    low, high = slice(0, h), slice(h, 2 * h)
    node = begin // 2
    # Halves with even numbers lose the rows of the next, those with odd numbers the columns of the one before.
    even, odd = range(max(2, begin + begin % 2), end, 2), range(begin + 1 - begin % 2, min(end, total - 1), 2)
    split = len(even) * E
    panel = P.new_empty(split + len(odd) * E, h, 3 * h)
    rows = panel[:split].view(len(even), E, h, 3 * h)
    columns = panel[split:].view(len(odd), E, h, 3 * h)
    nodes = slice(even.start // 2 - node, even.start // 2 - node + len(even))
    rows[..., :h], rows[..., h : 2 * h] = P[nodes, :, high, high], P[nodes, :, high, low]
    rows[..., 2 * h :] = X[nodes, :, high, low]
    nodes = slice(odd.start // 2 - node, odd.start // 2 - node + len(odd))
    columns[..., :h], columns[..., h : 2 * h] = C[nodes, :, low, low], C[nodes, :, low, high]
    columns[..., 2 * h :] = X[nodes, :, high, low].mT
    if definite:
        columns[..., :h].neg_()
    taken = eliminate_definite(panel, h) if definite else eliminate_indefinite(panel, h)
    needed = slice(begin - 2 * node, end - 2 * node)
    kept_P, kept_X, kept_C = (
        torch.stack([part[..., low, low], part[..., high, high]], 1).flatten(0, 1)[needed] for part in (P, X, C)
    )
    halves = slice(even.start - begin, None, 2), slice(odd.start - begin, odd.stop - begin, 2)
    for entry in range(E):
        (P_even, P_odd), (X_even, X_odd), (C_even, C_odd) = (
            [part[half, entry] for half in halves] for part in (kept_P, kept_X, kept_C)
        )
        these, those = slice(entry, split, E), slice(split + entry, None, E)
        taken.subtract_from(P_even, these, 0, 0, 1.0)
        taken.subtract_from(X_even, these, 0, h, 1.0)
        taken.subtract_from(C_even, these, h, h, 1.0)
        sign = -1.0 if definite else 1.0
        taken.subtract_from(C_odd, those, 0, 0, sign)
        # The second half's rows come first in X, and last in what is taken.
        taken.subtract_from(X_odd, those, h, 0, sign)
        taken.subtract_from(P_odd, those, h, h, sign)
    positive, logarithm, lost = (
        part.new_zeros(end - begin, E) for part in (taken.positive, taken.logarithm, taken.lost)
    )
    for half, part, count in zip(halves, (slice(0, split), slice(split, None)), (len(even), len(odd)), strict=True):
        positive[half] = taken.positive[part].view(count, E)
        logarithm[half] = taken.logarithm[part].view(count, E)
        lost[half] = taken.lost[part].view(count, E)
    return kept_P, kept_X, kept_C, positive, logarithm, lost
