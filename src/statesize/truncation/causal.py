"""What a memory keeps that has not seen the future: numbers by the rows of the past, and tokens."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor

from statesize.operators import Operator, Recurrence
from statesize.truncation.blocks import columns_before, eigenvectors, state_factors

# The last rows count most: half as much every so many rows before the cut, as they stand and moved behind it.
_HALF_LIFE, _MOVED_HALF_LIFE = 16.0, 64.0
# How far behind the cut rows are moved.
_MOVED = (0, 1, 2, 4, 8, 16, 32)
# Inputs that are kept as they are: the first, on which attention falls where it has nothing to read, and the last.
_FIRST, _LAST = 1, 2
# Rows before the cut by which tokens are chosen.
_WINDOW = 16


def past_rows(operator: Operator, cut: int) -> Tensor:
    """A basis of what rows before the cut read; its first k vectors are k numbers a channel.

    Rows behind the cut are taken to read what the last rows before it read: the same inputs, and inputs at the same
    distance. The basis is that of the best approximation of both, each with weights that halve with age. A state keeps
    the directions in which what it holds is largest.

    Args:
        operator: T of some units.
        cut: Position i.

    Returns:
        V, (..., c, n): c columns, one an input of the past. It depends on nothing behind the cut.
    """
    if isinstance(operator, Recurrence):
        _, right = state_factors(operator.to(torch.float64).with_real_output(), cut)
        return cast("Any", torch.linalg).svd(right.conj(), full_matrices=False).U
    matrix = columns_before(operator, cut)
    count = matrix.shape[-1]
    exact = [*range(min(_FIRST, count)), *range(max(_FIRST, count - _LAST), count)]
    _, vectors = eigenvectors(_expected_gram(matrix[..., :cut, :], exact))
    # The rows hold nothing in the columns that are kept anyway, which therefore come first.
    single = torch.eye(count, dtype=vectors.dtype, device=vectors.device)[:, exact].expand(*vectors.shape[:-1], -1)
    return torch.cat([single, vectors.flip(-1)[..., : count - len(exact)]], -1)


def _expected_gram(rows: Tensor, exact: list[int]) -> Tensor:
    """Σ w rᵀ r of rows (..., i, c) as they stand and moved behind the cut, without some columns."""
    length, count = rows.shape[-2:]
    age = torch.arange(length - 1, -1, -1, dtype=torch.float64, device=rows.device)
    column, row = torch.arange(count, device=rows.device), torch.arange(length, device=rows.device)[:, None]
    wanted = torch.ones(count, dtype=rows.dtype, device=rows.device)
    wanted[exact] = 0
    weights = (torch.exp2(-age / half)[:, None] for half in (_HALF_LIFE, _MOVED_HALF_LIFE))
    weight, moved_weight = (one / one.square().sum().sqrt() for one in weights)
    standing = weight * wanted * rows
    gram = standing.mT @ standing
    steps = count // length
    for behind in _MOVED:
        # Row t at position i + behind reads of each input what it read of one as far away; the first stands still.
        source = column - steps * (length + behind - row)
        seen = (source >= _FIRST) & (source < steps * (row + 1))
        moved = torch.gather(rows, -1, source.clamp(0, count - 1).expand(rows.shape)) * seen
        moved = moved_weight * wanted * moved
        gram = gram + moved.mT @ moved / len(_MOVED)
    return gram


def past_tokens(operator: Operator, cut: int) -> Tensor:
    """A basis of single inputs, those first that the last rows before the cut read most of.

    Args:
        operator: T of some units. A state keeps no inputs: of a recurrence the basis is that of `past_rows`.
        cut: Position i.

    Returns:
        V, (..., c, n), as of `past_rows`.
    """
    if isinstance(operator, Recurrence):
        return past_rows(operator, cut)
    matrix = columns_before(operator, cut)
    read = matrix[..., max(0, cut - _WINDOW) : cut, :].abs().sum(-2)
    return torch.nn.functional.one_hot(read.argsort(-1, descending=True), read.shape[-1]).to(matrix).mT


CHOICES: dict[str, Callable[[Operator, int], Tensor]] = {"past rows": past_rows, "past tokens": past_tokens}
"""The basis of each rule."""
