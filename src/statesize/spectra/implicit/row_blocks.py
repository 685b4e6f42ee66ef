"""Softmax attention by blocks of its rows: one pass over T multiplies all blocks H_i with vectors, forth and back.

H_iᵀ H_i x needs each row of T for both products at once, y_R = T[R, :i] x and T[R, :i]ᵀ y_R. So T is formed from
queries and keys one block of rows R at a time, and never held whole.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from statesize.operators import SoftmaxAttention
from statesize.parallel.threads import end_if_unwanted

ROWS = 256
"""Rows of T that are held at once."""
# Columns that are formed at once, few enough for a processor's cache.
_COLUMNS = 1024
# Of a score summed in single precision, in units of eps and of the largest terms; 0.4 was the most that was seen.
_SINGLE_ROUND_OFF = 4.0


class AttentionRows:
    """H_i = T[i:, :i] at ascending positions of one head, for products with H_iᵀ H_i.

    With its rows and columns in reverse order, Tᵀ is such a matrix too, whose H_{L−i} is H_iᵀ: `attention_factors`
    may be exchanged and reversed. With `single`, T is formed in single precision for products, which takes a third off
    a pass; sums and norms are in double precision all the same.

    Attributes:
        squared_norms: ‖H_i‖_F² of each position, (P,).
        lost: At most ‖H_i − H̃_i‖_F / ‖H_i‖_F for the H̃_i that products are taken with.
    """

    def __init__(
        self, left: Tensor, right: Tensor, window: int | None, positions: Sequence[int], single: bool = False
    ) -> None:
        self._left, self._right, self._positions = left, right, list(positions)
        self._length = left.shape[0]
        self._window = window or self._length
        self._rows = left.new_empty(min(ROWS, self._length), self._length)
        energy = left.new_zeros(len(positions))
        for reached, rows in self._row_blocks(self._positions):
            slabs = torch.stack([rows[:, a:b].square().sum() for a, b in _slabs(self._positions[:reached])])
            energy[:reached] += slabs.cumsum(0)
        self.squared_norms, self.lost = energy, 0.0
        if single:
            self.lost = _SINGLE_ROUND_OFF * torch.finfo(torch.float32).eps * _largest_terms(left, right)
            self._left, self._right = left.float(), right.float()

    def gram(self, blocks: Sequence[Tensor]) -> list[Tensor]:
        """H_iᵀ H_i x for vectors x in rows, (k_i, i) at each position; k_i may be 0."""
        asked = [(i, block) for i, block in zip(self._positions, blocks, strict=True) if block.shape[0]]
        positions = [i for i, _ in asked]
        ends = [0, *itertools.accumulate(block.shape[0] for _, block in asked)]
        # The vectors of all positions, with zeros behind: in the columns of a slab, those of later positions count.
        vectors = self._rows.new_zeros(ends[-1], positions[-1] if positions else 0)
        for (i, block), first, end in zip(asked, ends, ends[1:], strict=False):
            vectors[first:end, :i] = block
        products = torch.zeros_like(vectors)
        for reached, rows in self._row_blocks(positions):
            slabs = list(zip(_slabs(positions[:reached]), ends, strict=False))
            y = rows.new_zeros(rows.shape[0], ends[reached])
            for (a, b), first in slabs:
                y[:, first:] += rows[:, a:b] @ vectors[first : ends[reached], a:b].mT
            for (a, b), first in slabs:
                products[first : ends[reached], a:b] += y[:, first:].mT @ rows[:, a:b]
        found = {
            i: products[first:end, :i] for i, (first, end) in zip(positions, itertools.pairwise(ends), strict=True)
        }
        return [found.get(i, block) for i, block in zip(self._positions, blocks, strict=True)]

    def _row_blocks(self, positions: Sequence[int]) -> Iterator[tuple[int, Tensor]]:
        """How many of the positions have H_i with these rows, and T[R, :i] of the last one, block by block."""
        borders = sorted({*positions, *range(0, self._length, ROWS), self._length})
        for top, bottom in itertools.pairwise(borders):
            reached = sum(position <= top for position in positions)
            if reached:
                end_if_unwanted()
                yield reached, self._probabilities(top, bottom, positions[reached - 1])

    def _probabilities(self, top: int, bottom: int, end: int) -> Tensor:
        """T[top:bottom, :end] for end ≤ top, until the next call."""
        rows = self._rows[: bottom - top, :end]
        for first in range(0, end, _COLUMNS):
            others = self._right[first : min(first + _COLUMNS, end)]
            rows[:, first : first + _COLUMNS] = torch.mm(self._left[top:bottom], others.mT).exp_()
        if bottom - self._window > 0:
            rows.triu_(top - self._window + 1)
        return rows


def _slabs(positions: Sequence[int]) -> Iterator[tuple[int, int]]:
    """The columns between one position and the next."""
    return itertools.pairwise([0, *positions])


def _largest_terms(left: Tensor, right: Tensor) -> float:
    """At most Σ_k |left_ik right_jk| of `attention_factors`, exchanged or not, for any i and j."""
    # One of the two has a last column of ones, the other the log-sums; what is before them is bounded by its norms.
    products = [part[:, :-1].square().sum(-1).amax().sqrt() for part in (left, right)]
    sums = [part[:, -1].abs().amax() for part in (left, right)]
    return float(products[0] * products[1] + sums[0] * sums[1])


def attention_factors(head: SoftmaxAttention) -> tuple[Tensor, Tensor]:
    """Two matrices (L, d + 1) with T[i, j] = exp(left_i · right_j) where key j is seen: scores less their log-sums."""
    query, key = head.query * head.scale, head.key
    window = head.window or head.length
    sums: list[Tensor] = []
    for top in range(0, head.length, ROWS):
        end_if_unwanted()
        bottom, first = min(top + ROWS, head.length), max(0, top - window + 1)
        row, column = (torch.arange(begin, bottom, device=query.device) for begin in (top, first))
        lag = row[:, None] - column
        scores = (query[top:bottom] @ key[first:bottom].mT).masked_fill_((lag < 0) | (lag >= window), -torch.inf)
        sums.append(scores.logsumexp(-1))
    left = torch.cat([query, -torch.cat(sums)[:, None]], -1)
    return left, torch.nn.functional.pad(key, (0, 1), value=1.0)
