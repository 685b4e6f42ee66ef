"""What stands before a cut: H_i = T[i:, :i] by its singular vectors, what read it, and what a basis drops of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from importlib import import_module
from typing import Any, Self, cast

import torch
from torch import Tensor

from statesize.adapters.kernels.rotation import Rotation
from statesize.operators import Operator, Recurrence, SoftmaxAttention
from statesize.operators.stepped import DelayedRecurrence, Stepped
from statesize.parallel.threads import in_parallel, one_thread
from statesize.spectra.border_maps import border_maps

_linalg = cast("Any", torch.linalg)
# How far behind the cut queries of the past are asked again.
_ASKED = (0, 4, 16, 64)
# Where queries cannot be moved, the last rows count most: half as much every so many rows before the cut.
_HALF_LIFE = 16.0


def eigenvectors(symmetric: Tensor) -> Tensor:
    """Eigenvectors (..., n, n) in the order of ascending eigenvalues."""
    return torch.stack([pair[1] for pair in _each(_linalg.eigh, symmetric)]).reshape(symmetric.shape)


def leading_eigenvectors(symmetric: Tensor, counts: Tensor) -> Tensor:
    """Eigenvectors of the largest eigenvalues first, (..., n, most): so many of each matrix (...), and 0 beyond."""
    most, n = int(counts.max()), symmetric.shape[-1]
    # A few vectors take less time than all, but scipy lets one thread run at a time.
    if symmetric.device.type != "cpu" or torch.get_num_threads() > 2 or 4 * most > n:
        return eigenvectors(symmetric).flip(-1)[..., :most]
    eigh: Any = import_module("scipy.linalg").eigh  # importing it takes time
    matrices, bases = symmetric.reshape(-1, n, n), symmetric.new_zeros(symmetric.shape[:-2].numel(), n, most)
    with one_thread():
        for matrix, vectors, count in zip(matrices, bases, counts.expand(symmetric.shape[:-2]).flatten(), strict=True):
            if count:
                some = eigh(matrix.numpy(), subset_by_index=(n - int(count), n - 1), check_finite=False)[1]
                vectors[:, :count] = torch.from_numpy(some).flip(-1)
    return bases.reshape(*symmetric.shape[:-1], most)


def gram(rows: Tensor) -> Tensor:
    """Σ rᵀ r of rows (..., m, n) in float64."""
    # numpy computes one half of a symmetric product, and copies it.
    if rows.device.type == "cpu":
        array = rows.double().numpy()
        return torch.from_numpy(array.swapaxes(-1, -2) @ array)
    return rows.double().mT @ rows.double()


def _each(decompose: Callable[[Tensor], Any], symmetric: Tensor) -> list[Any]:
    """Decompose matrices, one per thread: LAPACK's own threads only wait here."""
    with one_thread():
        return in_parallel([partial(decompose, matrix) for matrix in symmetric.reshape(-1, *symmetric.shape[-2:])])


def recurrence_of(operator: Operator) -> tuple[Recurrence, int] | None:
    """The recurrence that an operator is, with real output in float64, and its steps per position; None of others."""
    steps = operator.steps if isinstance(operator, Stepped) else 1
    inner = operator.recurrence if isinstance(operator, Stepped) else operator
    return (inner.to(torch.float64).with_real_output(), steps) if isinstance(inner, Recurrence) else None


def past_block(operator: Operator, cut: int) -> Tensor:
    """H_i as it stands, (..., L − i, i), of attention in its own dtype."""
    if isinstance(operator, SoftmaxAttention):
        # Rows before the cut are not computed.
        return operator.block(slice(cut, operator.length), slice(0, cut))
    return operator.columns(0, cut).double()[..., cut:, :]


def state_factors(recurrence: Recurrence, cut: int) -> tuple[Tensor, Tensor]:
    """H_i = left · rightᵀ: what rows after the cut read of what is carried, and what that holds of inputs before."""
    states, after = recurrence.B.shape[-1], recurrence.length - cut
    maps = border_maps(recurrence, [0, cut, recurrence.length])
    # Rows C_t Φ(t, i − 1) and columns Φ(i − 1, s) B_s; chunks are filled up to the longer one.
    rows, columns = maps.observability[..., 1, :after, :], maps.reachability[..., 0, :, :cut].mT
    # The second half of a pair (x_t, x_{t−1}) is never carried any further.
    carried = states // 2 if isinstance(recurrence, DelayedRecurrence) else states
    return rows[..., :carried], columns[..., :carried]


def directions(left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    """σ of left · rightᵀ, descending, and an orthonormal basis (..., c, n) of what it reads, in their order."""
    Q, R = _linalg.qr(right.conj())
    inner = _linalg.svd(_linalg.qr(left, mode="r").R @ R.mH)
    return inner.S, Q @ inner.Vh.mH


@dataclass(frozen=True, eq=False)
class PastBlock:
    """H_i of some units: the best rank k reads only Vₖᵀ u, k numbers per channel, of all past inputs u."""

    left: Tensor  # H = left · rightᵀ, (..., rows, n)
    right: Tensor | None = None  # (..., c, n), several inputs of one position in turn; None where left is H itself

    @classmethod
    def of(cls, operator: Operator, cut: int) -> Self:
        """H_i of an operator, from the factors of a recurrence in float64, or from T itself."""
        stepped = recurrence_of(operator)
        if stepped is None:
            return cls(past_block(operator, cut))
        recurrence, steps = stepped
        left, right = state_factors(recurrence, cut * steps)
        return cls(left[..., steps - 1 :: steps, :], right)

    @cached_property
    def values(self) -> Tensor:
        """σ, (..., m) float64, descending."""
        if self.right is not None:
            return self._factored[0]
        # It takes two thirds of the time; what it rounds, below 1e-8 σ₁, no cut of a model shows.
        squares = gram(self.left)
        eigenvalues = torch.stack(_each(_linalg.eigvalsh, squares)).reshape(squares.shape[:-1])
        return eigenvalues[..., -min(self.left.shape[-2:]) :].clamp(min=0).sqrt().flip(-1)

    @cached_property
    def _factored(self) -> tuple[Tensor, Tensor]:
        return directions(self.left, cast("Tensor", self.right))

    def basis(self, ranks: Tensor) -> Tensor:
        """V, (..., c, m), of which the first k vectors are the best at rank k; at least up to these ranks (...)."""
        if self.right is not None:
            return self._factored[1]
        return leading_eigenvectors(gram(self.left), ranks.clamp(max=min(self.left.shape[-2:])))


@dataclass(frozen=True, eq=False)
class Past:
    """Some units at a cut."""

    operator: Operator  # T
    cut: int  # position i
    rotation: Rotation | None = None  # of the queries, which may be none; None where what moves them is not known
    behind: Tensor | None = None  # H_i = T[i:, :i] as one run has it, if that is not of the operator

    def readers(self, ranks: Tensor) -> int:
        """How many consecutive units read one stored input and share a basis, of which these are the ranks."""
        return self.operator.batch_shape[-1] // ranks.shape[-1] if ranks.ndim else 1

    def block(self, readers: int = 1) -> PastBlock:
        """H_i of each unit, or of all that share a basis, one below the other."""
        if self.behind is None and readers == 1:
            return PastBlock.of(self.operator, self.cut)
        rows = past_block(self.operator, self.cut) if self.behind is None else self.behind
        return PastBlock(rows.reshape(*rows.shape[:-3], -1, readers * rows.shape[-2], rows.shape[-1]))

    @cached_property
    def readable(self) -> Tensor:
        """Which inputs of the past some row behind the cut reads, (i,) bool: those that no window or chunk hides."""
        if int(self.operator.state_size()[self.cut]) >= self.cut:
            return torch.ones(self.cut, dtype=torch.bool, device=self.operator.device)
        return (past_block(self.operator, self.cut) != 0).flatten(0, -2).any(0)

    @cached_property
    def moments(self) -> Tensor:
        """Σ rᵀ r of what the queries before the cut read there: each moved behind it, or else the last ones most."""
        age, attention = torch.arange(self.cut, 0, -1, device=self.operator.device), self.operator
        if not isinstance(attention, SoftmaxAttention) or self.rotation is None:
            rows = self.operator.columns(0, self.cut).double()[..., : self.cut, :]
            return gram(torch.exp2((1 - age.double()) / _HALF_LIFE)[:, None] * rows)
        query = attention.query[..., : self.cut, :]
        moved = (self.rotation.moved(query, age + behind) for behind in _ASKED)
        read = (attention.attend(q, self.cut + behind, self.cut) for q, behind in zip(moved, _ASKED, strict=True))
        return sum(map(gram, read), torch.zeros(()))


def dropped(inputs: Tensor, basis: Tensor, ranks: Tensor) -> Tensor:
    """(1 − Vₖ Vₖᴴ) u for inputs u before a cut, (..., c, P), V as a `Basis` gives it and ranks k, (...)."""
    if basis.dtype is torch.int64:
        return inputs.masked_fill(basis.argsort(-2) < ranks[..., None, None], 0.0)
    basis = basis[..., : int(ranks.max())]
    kept = torch.arange(basis.shape[-1], device=ranks.device) < ranks[..., None]
    numbers = (basis.mH @ inputs.to(basis.dtype)) * kept[..., None]
    rest = inputs - basis @ numbers
    # H is real, also where a basis of complex modes is not.
    return rest.real if rest.is_complex() else rest
