"""H_i = T[i:, :i] at one cut by its singular vectors, and what its outputs lose at a lower rank."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self, cast

import torch
from torch import Tensor

from statesize.operators import Operator, Recurrence
from statesize.operators.stepped import Stepped

_linalg, _special = cast("Any", torch.linalg), cast("Any", torch.special)


@dataclass(frozen=True, eq=False)
class PastBlock:
    """H_i of some units: the best rank k reads only Vₖᵀ u, k numbers a channel, of all past inputs u."""

    values: Tensor  # σ, (..., m) float64, descending
    basis: Tensor  # V, (..., c, m): c columns, one an input of the past
    left: Tensor  # H = left · rightᵀ, (..., rows, n)
    right: Tensor | None  # (..., c, n); None where left is H itself

    @classmethod
    def of(cls, operator: Operator, cut: int) -> Self:
        """H_i of an operator in float64, from the factors of a recurrence or from T itself."""
        if isinstance(operator, Recurrence):
            return cls._of_recurrence(operator.to(torch.float64).with_real_output(), cut)
        if isinstance(operator, Stepped):
            # Inputs of one position lie behind one another.
            return cls.of_matrix(operator.columns(0, cut)[..., cut:, :, :].flatten(-2).double())
        return cls.of_matrix(operator.columns(0, cut)[..., cut:, :].double())

    @classmethod
    def of_matrix(cls, matrix: Tensor) -> Self:
        """H_i as it stands, (..., rows, c)."""
        # The Gram matrix takes two thirds of the time; what it rounds, below 1e-8 σ₁, no cut of a model shows.
        squares, vectors = cast("tuple[Tensor, Tensor]", _linalg.eigh(matrix.mT @ matrix))
        count = min(matrix.shape[-2:])
        values = squares[..., -count:].clamp(min=0).sqrt().flip(-1)
        return cls(values, vectors[..., -count:].flip(-1), matrix, None)

    @classmethod
    def of_groups(cls, matrices: Tensor) -> Self:
        """H_i of units that read one stored input, (..., groups, r, rows, c), with the basis of their stack."""
        stacked = cls.of_matrix(matrices.flatten(-3, -2))
        return cls(stacked.values[..., None, :], stacked.basis[..., None, :, :], matrices, None)

    @classmethod
    def _of_recurrence(cls, recurrence: Recurrence, cut: int) -> Self:
        shape, states = recurrence.batch_shape, recurrence.B.shape[-1]
        identity = torch.eye(states, dtype=recurrence.B.dtype, device=recurrence.device).expand(*shape, -1, -1)
        # Columns Φ(i − 1, s) B_s from the last to the first; rows C_t Φ(t, i − 1) from the first on.
        columns, onward = list[Tensor](), identity
        for t in range(cut - 1, -1, -1):
            columns.append((onward @ recurrence.B[..., t, :, None]).squeeze(-1).expand(*shape, states))
            onward = recurrence.transition.recede(t, onward)
        rows, state = list[Tensor](), identity
        for t in range(cut, recurrence.length):
            state = recurrence.transition.advance(t, state)
            rows.append((recurrence.C[..., t, None, :] @ state).squeeze(-2))
        right, left = torch.stack(columns[::-1], -2), torch.stack(rows, -2)
        Q, R = _linalg.qr(right.conj())
        inner = _linalg.svd(_linalg.qr(left, mode="r").R @ R.mH, full_matrices=False)
        return cls(inner.S, Q @ inner.Vh.mH, left, right)

    @property
    def entropy(self) -> Tensor:
        """Entropy-ESS of each unit, (...); 0 where H_i is 0."""
        total = self.values.sum(-1, keepdim=True)
        shares = self.values / torch.where(total > 0, total, torch.ones_like(total))
        size: Tensor = _special.entr(shares).sum(-1).exp()
        return size * (total[..., 0] > 0)

    @property
    def norm(self) -> Tensor:
        """‖H_i‖_F of each unit, (...)."""
        return self.values.square().sum(-1).sqrt()

    def lost(self, inputs: Tensor, ranks: Tensor) -> Tensor:
        """(H − H_k) u for inputs u before the cut, (..., c, P), and ranks k, (...): (..., rows, P)."""
        kept = torch.arange(self.values.shape[-1], device=ranks.device) < ranks[..., None]
        numbers = (self.basis.mH @ inputs.to(self.basis.dtype)) * kept[..., None]
        rest = inputs - self.basis @ numbers
        lost = self.left @ (rest if self.right is None else self.right.mT @ rest)
        return lost.real if lost.is_complex() else lost
