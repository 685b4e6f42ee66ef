"""Numbers and tokens that a memory keeps by what rows before the cut read of them: the price of hindsight."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import functional

from statesize.adapters.kernels.rotation import Rotation
from statesize.operators import Operator, SoftmaxAttention
from statesize.truncation.blocks import (
    directions,
    eigenvectors,
    gram,
    past_block,
    readable,
    recurrence_of,
    state_factors,
)

# How far behind the cut queries of the past are asked again.
_ASKED = (0, 4, 16, 64)
# Where they cannot be moved, the last rows count most: half as much every so many rows before the cut, as they stand
# and moved behind it.
_HALF_LIFE, _MOVED_HALF_LIFE = 16.0, 64.0
# How far behind the cut rows are moved.
_MOVED = (0, 1, 2, 4, 8, 16, 32)
# Inputs that are kept as they are: the first, on which attention falls where it has nothing to read; and the last, but
# for queries that are asked again.
_FIRST, _LAST = 1, 2
# Rows before the cut by which tokens are chosen, where queries cannot be moved.
_WINDOW = 16
_matrix_rank = cast("Any", torch.linalg).matrix_rank


@dataclass(frozen=True, eq=False)
class PastReading:
    """What rows behind a cut may read, by what rows before it do; it depends on nothing behind the cut.

    Attention is asked again by the queries of the past, moved behind the cut. Where they cannot be moved, rows behind
    the cut are taken to read what the last rows before it read: the same inputs, and inputs at the same distance, each
    with weights that halve with age. The queries C_t of a recurrence are asked again as they stand, so that its state
    is cut by two Gramians of the past: of what it holds, and of what was read. Where they are all multiples of one, as
    in an S4D, they are asked again as late as they come in the past, C_t A_t … A_1.
    """

    operator: Operator  # T of some units
    cut: int  # position i
    rotation: Rotation | None = None  # of the queries, which may be none; None where what moves them is not known

    def rows(self, readers: int = 1) -> Tensor:
        """A basis of what rows behind the cut may read, (..., c, n); its first k vectors are k numbers per channel."""
        # So many consecutive units read one stored input, and share a basis.
        if (found := recurrence_of(self.operator)) is not None:
            recurrence, cut = found[0], found[1] * self.cut
            held = state_factors(recurrence, cut)[1]
            # Where the state is a pair (x_t, x_{t−1}), C_t reads what was carried to t.
            read = recurrence.C[..., :cut, -held.shape[-1] :]
            alike = _matrix_rank(read) <= 1
            if cut > found[1] and held.shape[-1] > 1 and bool(alike.any()):
                # What C_t reads of older states differs all the same.
                later = state_factors(recurrence.between(0, cut), found[1])[0]
                read = torch.where(alike[..., None, None], functional.pad(later, (0, 0, found[1], 0)), read)
            return directions(read, held)[1]
        moments, last = (self._asked, 0) if self._asked is not None else (self._moved, _LAST)
        total, groups = moments.shape[-1], (*moments.shape[:-3], -1, readers)
        moments = moments.reshape(*groups, total, total).sum(-3) if readers > 1 else moments.clone()
        if (size := int(self.operator.state_size()[self.cut])) < int(self._readable.sum()):
            # A state holds no more of the past than the rows of H span.
            rows = past_block(self.operator, self.cut).double().reshape(*moments.shape[:-2], -1, total)
            held = cast("Any", torch.linalg).svd(rows, full_matrices=False).Vh.mH[..., :size]
            read = held.mT @ (moments.tril() + moments.tril(-1).mT) @ held
            basis = held @ eigenvectors(read).flip(-1)
            return basis if readers == 1 else basis.repeat_interleave(readers, -3)
        # No number is spent on what a window hides.
        columns = self._readable.nonzero().flatten()
        count, first = len(columns), _FIRST if bool(self._readable[0]) else 0
        if count < total:
            moments = moments[..., columns[:, None], columns]
        exact = [*range(min(first, count)), *range(max(first, count - last), count)]
        moments[..., exact, :] = moments[..., exact] = 0
        vectors = eigenvectors(moments) if count else moments
        # The rows hold nothing in the columns that are kept anyway, which therefore come first.
        single = torch.eye(count, dtype=vectors.dtype, device=vectors.device)[:, exact].expand(*vectors.shape[:-1], -1)
        basis = torch.cat([single, vectors.flip(-1)[..., : count - len(exact)]], -1)
        if count < total:
            basis = basis.new_zeros(*basis.shape[:-2], total, count).index_copy_(-2, columns, basis)
        return basis if readers == 1 else basis.repeat_interleave(readers, -3)

    def tokens(self) -> Tensor:
        """Inputs of the past, (..., c), those first that rows behind the cut may read most of; a state keeps none."""
        if self._asked is not None:
            read = self._asked.diagonal(dim1=-2, dim2=-1)
        else:
            read = self._before[..., -_WINDOW:, :].abs().sum(-2)
        return read.masked_fill(~self._readable, -1.0).argsort(-1, descending=True)

    @cached_property
    def _readable(self) -> Tensor:
        return readable(self.operator, self.cut)

    @cached_property
    def _asked(self) -> Tensor | None:
        """Σ rᵀ r of what the queries before the cut read there, once each is moved behind it."""
        if not isinstance(self.operator, SoftmaxAttention) or self.rotation is None:
            return None
        attention = self.operator
        age = torch.arange(self.cut, 0, -1, device=attention.device)
        query = attention.query[..., : self.cut, :]
        moved = (self.rotation.moved(query, age + behind) for behind in _ASKED)
        read = (attention.attend(one, self.cut + behind, self.cut) for one, behind in zip(moved, _ASKED, strict=True))
        return sum(map(gram, read), torch.zeros(()))

    @cached_property
    def _moved(self) -> Tensor:
        return _moved_gram(self._before)

    @property
    def _before(self) -> Tensor:
        """T of the positions before the cut, (..., i, i)."""
        return self.operator.columns(0, self.cut).double()[..., : self.cut, :]


def _moved_gram(rows: Tensor) -> Tensor:
    """Σ w rᵀ r of rows (..., i, i) as they stand and moved behind the cut."""
    length = rows.shape[-1]
    age = torch.arange(length - 1, -1, -1, dtype=torch.float64, device=rows.device)
    column = torch.arange(length, device=rows.device)
    row = column[:, None]
    weights = (torch.exp2(-age / half)[:, None] for half in (_HALF_LIFE, _MOVED_HALF_LIFE))
    weight, moved_weight = (one / one.square().sum().sqrt() for one in weights)
    found = gram(weight * rows)
    for behind in _MOVED:
        # Row t at position i + behind reads of each input what it read of one as far away; the first stands still.
        source = column - (length + behind - row)
        seen = (source >= _FIRST) & (source <= row)
        moved = torch.gather(rows, -1, source.clamp(0, length - 1).expand(rows.shape)) * seen
        found = found + gram(moved_weight * moved) / len(_MOVED)
    return found
