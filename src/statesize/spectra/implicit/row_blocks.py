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
    """H_i = T[i:, :i] at ascending positions of one head, (L, d), for products with H_iᵀ H_i.

    Attributes:
        squared_norms: ‖H_i‖_F² of each position, (P,).
    """

    def __init__(self, head: SoftmaxAttention, positions: Sequence[int]) -> None:
        self._positions, self._query, self._key = list(positions), head.query * head.scale, head.key
        self._length, self._window = head.length, head.window or head.length
        self._rows = self._query.new_empty(min(ROWS, head.length), head.length)
        starts = range(0, head.length, ROWS)
        self._log_sums = torch.cat([self._scores(t, min(t + ROWS, head.length)).logsumexp(-1) for t in starts])
        energy = self._query.new_zeros(len(positions))
        for place, _, rows in self._row_blocks():
            slabs = torch.stack([rows[:, a:b].square().sum() for a, b in self._slabs(place)])
            energy[: place + 1] += slabs.cumsum(0)
        self.squared_norms = energy

    def gram(self, blocks: Sequence[Tensor]) -> list[Tensor]:
        """H_iᵀ H_i x for vectors x in rows, (k_i, i) at each position; k_i may be 0."""
        counts = [block.shape[0] for block in blocks]
        ends = [0, *itertools.accumulate(counts)]
        # The vectors of all positions, with zeros behind: in the columns of a slab, those of later positions count.
        vectors = self._query.new_zeros(ends[-1], self._positions[-1])
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
            keys = self._key[first : first + tile.shape[1]]
            torch.addmm(-self._log_sums[top:bottom, None], self._query[top:bottom], keys.mT, out=tile)
            tile.exp_()
        if bottom - self._window > 0:
            rows.triu_(top - self._window + 1)
        return rows

    def _scores(self, top: int, bottom: int) -> Tensor:
        """Scores of all keys that the rows may see, −∞ for others."""
        first = max(0, top - self._window + 1)
        scores = self._query[top:bottom] @ self._key[first:bottom].mT
        row, column = (torch.arange(a, bottom, device=scores.device) for a in (top, first))
        lag = row[:, None] - column
        return scores.masked_fill_((lag < 0) | (lag >= self._window), -torch.inf)
