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


class AttentionRows:
    """H_i = T[i:, :i] at ascending positions of one head, for products with H_iᵀ H_i.

    With its rows and columns in reverse order, Tᵀ is such a matrix too, whose H_{L−i} is H_iᵀ: `attention_factors`
    may be exchanged and reversed.

    Attributes:
        squared_norms: ‖H_i‖_F² of each position, (P,).
    """

    def __init__(self, left: Tensor, right: Tensor, window: int | None, positions: Sequence[int]) -> None:
        self._left, self._right, self._positions = left, right, list(positions)
        self._length = left.shape[0]
        self._window = window or self._length
        self._rows = left.new_empty(min(ROWS, self._length), self._length)
        energy = left.new_zeros(len(positions))
        for place, _, rows in self._row_blocks():
            slabs = torch.stack([rows[:, a:b].square().sum() for a, b in self._slabs(place)])
            energy[: place + 1] += slabs.cumsum(0)
        self.squared_norms = energy

    def gram(self, blocks: Sequence[Tensor]) -> list[Tensor]:
        """H_iᵀ H_i x for vectors x in rows, (k_i, i) at each position; k_i may be 0."""
        counts = [block.shape[0] for block in blocks]
        ends = [0, *itertools.accumulate(counts)]
        # The vectors of all positions, with zeros behind: in the columns of a slab, those of later positions count.
        vectors = self._left.new_zeros(ends[-1], self._positions[-1])
        for block, end, i in zip(blocks, ends, self._positions, strict=False):
            vectors[end : end + block.shape[0], :i] = block
        products = torch.zeros_like(vectors)
        for place, reached, rows in self._row_blocks():
            if ends[reached] == 0:
                continue
            y = rows.new_zeros(rows.shape[0], ends[reached])
            for (a, b), first in zip(self._slabs(place), ends, strict=False):
                y[:, first:] += rows[:, a:b] @ vectors[first : ends[reached], a:b].mT
            for (a, b), first in zip(self._slabs(place), ends, strict=False):
                products[first : ends[reached], a:b] += y[:, first:].mT @ rows[:, a:b]
        return [
            products[first:end, :i] for (first, end), i in zip(itertools.pairwise(ends), self._positions, strict=True)
        ]

    def _row_blocks(self) -> Iterator[tuple[int, int, Tensor]]:
        """The last position whose H_i has these rows, how many have, and T[R, :i] of that one, block by block."""
        borders = sorted({*self._positions, *range(0, self._length, ROWS), self._length})
        for top, bottom in itertools.pairwise(borders):
            reached = sum(position <= top for position in self._positions)
            if not reached:
                continue
            end_if_unwanted()
            yield reached - 1, reached, self._probabilities(top, bottom, self._positions[reached - 1])

    def _slabs(self, place: int) -> Iterator[tuple[int, int]]:
        """The columns between one position and the next, up to the position at a place."""
        return itertools.pairwise([0, *self._positions[: place + 1]])

    def _probabilities(self, top: int, bottom: int, end: int) -> Tensor:
        """T[top:bottom, :end] for end ≤ top, until the next call."""
        rows = self._rows[: bottom - top, :end]
        for first in range(0, end, _COLUMNS):
            tile = rows[:, first : first + _COLUMNS]
            others = self._right[first : first + tile.shape[1]]
            torch.mm(self._left[top:bottom], others.mT, out=tile)
            tile.exp_()
        if bottom - self._window > 0:
            rows.triu_(top - self._window + 1)
        return rows


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
