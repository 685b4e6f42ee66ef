"""What a memory keeps that has not seen the future: numbers and tokens by what the past lets expect of it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from statesize.adapters.kernels.rotation import Rotation
from statesize.operators import Operator, Recurrence, SoftmaxAttention
from statesize.truncation.blocks import columns_before, directions, eigenvectors, state_factors

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


def past_rows(operator: Operator, cut: int, rotation: Rotation | None = None, readers: int = 1) -> Tensor:
    """A basis of what rows behind the cut may read; its first k vectors are k numbers per channel.

    Attention is asked again by the queries of the past, moved behind the cut. Where they cannot be moved, rows behind
    the cut are taken to read what the last rows before it read: the same inputs, and inputs at the same distance, each
    with weights that halve with age. The queries C_t of a recurrence are asked again as they stand, so that its state
    is cut by two Gramians of the past: of what it holds, and of what was read.

    Args:
        operator: T of some units.
        cut: Position i.
        rotation: Rotary embeddings of the queries; None where what moves them is not known.
        readers: Consecutive units that read one stored input, and share a basis.

    Returns:
        V, (..., c, n): c columns, one an input of the past. It depends on nothing behind the cut.
    """
    if isinstance(operator, Recurrence):
        recurrence = operator.to(torch.float64).with_real_output()
        return directions(recurrence.C[..., :cut, :], state_factors(recurrence, cut)[1])[1]
    if isinstance(operator, SoftmaxAttention) and rotation is not None:
        gram, last = _asked_again(operator, cut, rotation, lambda rows: rows.mT @ rows), 0
    else:
        gram, last = _moved_gram(columns_before(operator, cut)[..., :cut, :]), _LAST
    if readers > 1:
        gram = gram.reshape(*gram.shape[:-3], -1, readers, *gram.shape[-2:]).sum(-3)
    count = gram.shape[-1]
    exact = [*range(min(_FIRST, count)), *range(max(_FIRST, count - last), count)]
    gram[..., exact, :] = gram[..., exact] = 0
    vectors = eigenvectors(gram)
    # The rows hold nothing in the columns that are kept anyway, which therefore come first.
    single = torch.eye(count, dtype=vectors.dtype, device=vectors.device)[:, exact].expand(*vectors.shape[:-1], -1)
    basis = torch.cat([single, vectors.flip(-1)[..., : count - len(exact)]], -1)
    return basis if readers == 1 else basis.repeat_interleave(readers, -3)


def _asked_again(
    operator: SoftmaxAttention, cut: int, rotation: Rotation, amount: Callable[[Tensor], Tensor]
) -> Tensor:
    """An amount of what the queries before a cut read there, (..., i, c), once each is moved behind it; their sum."""
    attention, age = operator.to(torch.float64), torch.arange(cut, 0, -1, device=operator.device)
    query = attention.query[..., :cut, :]
    read = (attention.asked(rotation.moved(query, age + behind), cut + behind, cut) for behind in _ASKED)
    return sum(map(amount, read), torch.zeros(()))


def _moved_gram(rows: Tensor) -> Tensor:
    """Σ w rᵀ r of rows (..., i, c) as they stand and moved behind the cut."""
    length, count = rows.shape[-2:]
    age = torch.arange(length - 1, -1, -1, dtype=torch.float64, device=rows.device)
    column, row = torch.arange(count, device=rows.device), torch.arange(length, device=rows.device)[:, None]
    weights = (torch.exp2(-age / half)[:, None] for half in (_HALF_LIFE, _MOVED_HALF_LIFE))
    weight, moved_weight = (one / one.square().sum().sqrt() for one in weights)
    standing = weight * rows
    gram = standing.mT @ standing
    steps = count // length
    for behind in _MOVED:
        # Row t at position i + behind reads of each input what it read of one as far away; the first stands still.
        source = column - steps * (length + behind - row)
        seen = (source >= _FIRST) & (source < steps * (row + 1))
        moved = torch.gather(rows, -1, source.clamp(0, count - 1).expand(rows.shape)) * seen
        moved = moved_weight * moved
        gram = gram + moved.mT @ moved / len(_MOVED)
    return gram


def past_tokens(operator: Operator, cut: int, rotation: Rotation | None = None) -> Tensor:
    """A basis of single inputs, those first that rows behind the cut may read most of.

    Args:
        operator: T of some units. A state keeps no inputs: of a recurrence the basis is that of `past_rows`.
        cut: Position i.
        rotation: As for `past_rows`.

    Returns:
        V, (..., c, n), as of `past_rows`.
    """
    if isinstance(operator, Recurrence):
        return past_rows(operator, cut)
    if isinstance(operator, SoftmaxAttention) and rotation is not None:
        read = _asked_again(operator, cut, rotation, lambda rows: rows.square().sum(-2))
    else:
        read = columns_before(operator, cut)[..., max(0, cut - _WINDOW) : cut, :].abs().sum(-2)
    return torch.nn.functional.one_hot(read.argsort(-1, descending=True), read.shape[-1]).to(read).mT
