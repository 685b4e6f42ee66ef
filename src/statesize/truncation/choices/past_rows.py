"""Numbers that rows before the cut read: a memory that cannot see the future, whose loss is the price of hindsight."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import functional

from statesize.operators import Recurrence
from statesize.truncation.blocks import Past, directions, eigenvectors, past_block, recurrence_of, state_factors
from statesize.truncation.choices.choice import Basis, Rule

_linalg = cast("Any", torch.linalg)


class PastRows(Basis):
    """What rows behind the cut may read, by what rows before it do; it depends on nothing behind the cut.

    Attention is asked again by the queries of the past, moved behind the cut. Where they cannot be moved, rows behind
    the cut are taken to read what the last rows before it read, with weights that halve with age. The queries C_t of a
    recurrence are asked again as they stand, so that its state is cut by two Gramians of the past: of what it holds,
    and of what was read (Moore 1981). Where they are all multiples of one, as in an S4D, they are asked again as late
    as they come in the past, C_t A_t … A_1.
    """

    def vectors(self, past: Past, ranks: Tensor) -> Tensor:
        """See `Basis`."""
        if (stepped := recurrence_of(past.operator)) is not None:
            return _of_state(*stepped, past.cut)
        moments, readers = past.moments, past.readers(ranks)
        total = moments.shape[-1]
        groups = (*moments.shape[:-3], -1, readers, total, total)
        moments = moments.reshape(groups).sum(-3) if readers > 1 else moments.clone()
        if (size := int(past.operator.state_size()[past.cut])) < int(past.readable.sum()):
            # A state holds no more of the past than the rows of H span.
            rows = past_block(past.operator, past.cut).double().reshape(*moments.shape[:-2], -1, total)
            held = _linalg.svd(rows, full_matrices=False).Vh.mH[..., :size]
            read = held.mT @ moments @ held
            return held @ eigenvectors(read).flip(-1)
        # No number is spent on what a window hides.
        columns = past.readable.nonzero().flatten()
        count, first = len(columns), int(past.readable[0])
        moments = moments[..., columns[:, None], columns]
        # The first input comes first, as it is: attention falls on it where it has nothing to read.
        moments[..., :first, :] = moments[..., :first] = 0
        moments[..., :first, :first] = 1 + moments.diagonal(dim1=-2, dim2=-1).sum(-1)[..., None, None]
        basis = eigenvectors(moments).flip(-1) if count else moments
        return basis.new_zeros(*basis.shape[:-2], total, count).index_copy_(-2, columns, basis)


RULES = (
    Rule("past rows", "without hindsight", PastRows(), (0.5, 1.0, 2.0, 4.0, 8.0)),
    Rule("past rows, other texts", "without hindsight, sizes of others", PastRows(), (1.0, 2.0, 4.0), other_texts=True),
    Rule("joint past rows", "without hindsight, once per cache", PastRows(), (2.0, 4.0, 8.0), "cache"),
)


def _of_state(recurrence: Recurrence, steps: int, cut: int) -> Tensor:
    cut = steps * cut
    held = state_factors(recurrence, cut)[1]
    # Where the state is a pair (x_t, x_{t−1}), C_t reads what was carried to t.
    read = recurrence.C[..., :cut, -held.shape[-1] :]
    alike = _linalg.matrix_rank(read) <= 1
    if cut > steps and held.shape[-1] > 1 and bool(alike.any()):
        # What C_t reads of older states differs all the same.
        later = state_factors(recurrence.between(0, cut), steps)[0]
        read = torch.where(alike[..., None, None], functional.pad(later, (0, 0, steps, 0)), read)
    return directions(read, held)[1]
