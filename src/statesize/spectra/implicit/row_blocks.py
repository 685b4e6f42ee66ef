"""Softmax attention by blocks of its rows: one pass over T multiplies all blocks H_i with vectors, forth and back.

H_iᵀ H_i x needs each row of T for both products at once, y_R = T[R, :i] x and T[R, :i]ᵀ y_R. So T is formed from
queries and keys one block of rows R at a time, and never held whole.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from statesize.parallel.threads import end_if_unwanted
from statesize.spectra.implicit.attention_factors import COLUMNS, ROWS, AttentionFactors


class AttentionRows:
    """H_i = T[i:, :i] at ascending positions of one head, for products with H_iᵀ H_i.

    T is formed in the precision of its factors, products are in double precision all the same; single precision takes
    a third off a pass.
    """

    def __init__(self, factors: AttentionFactors, positions: Sequence[int]) -> None:
        self._factors, self._positions = factors, list(positions)
        self._rows = factors.left.new_empty(min(ROWS, factors.length), self._positions[-1])

    def gram(self, blocks: Sequence[Tensor]) -> list[Tensor]:
        """H_iᵀ H_i x for float64 vectors x in rows, (k_i, i) at each position; k_i may be 0."""
        asked = [(i, block) for i, block in zip(self._positions, blocks, strict=True) if block.shape[0]]
        positions = [i for i, _ in asked]
        ends = [0, *itertools.accumulate(block.shape[0] for _, block in asked)]
        # The vectors of all positions, with zeros behind: in the columns of a slab, those of later positions count.
        vectors = self._rows.new_zeros(ends[-1], positions[-1] if positions else 0, dtype=torch.float64)
        for (i, block), first, end in zip(asked, ends, ends[1:], strict=False):
            vectors[first:end, :i] = block
        products = torch.zeros_like(vectors)
        # In the columns of a piece, the blocks from one on.
        pieces = [
            (a, min(a + COLUMNS, border), first)
            for (left, border), first in zip(itertools.pairwise([0, *positions]), ends, strict=False)
            for a in range(left, border, COLUMNS)
        ]
        for top, bottom, reached in self._row_blocks(positions):
            rows, last = self._rows[: bottom - top], ends[reached]
            seen = [piece for piece in pieces if piece[1] <= positions[reached - 1]]
            y = vectors.new_zeros(bottom - top, last)
            for a, b, first in seen:
                part = self._probabilities(top, bottom, a, b)
                rows[:, a:b] = part
                y[:, first:] += part.double() @ vectors[first:last, a:b].mT
            for a, b, first in seen:
                products[first:last, a:b] += y[:, first:].mT @ rows[:, a:b].double()
        found = {
            i: products[first:end, :i] for i, (first, end) in zip(positions, itertools.pairwise(ends), strict=True)
        }
        return [found.get(i, block) for i, block in zip(self._positions, blocks, strict=True)]

    def _row_blocks(self, positions: Sequence[int]) -> Iterator[tuple[int, int, int]]:
        """Rows, from one to another, and how many of the positions have H_i with them."""
        length = self._factors.length
        for top, bottom in itertools.pairwise(sorted({*positions, *range(0, length, ROWS), length})):
            reached = sum(position <= top for position in positions)
            if reached:
                end_if_unwanted()
                yield top, bottom, reached

    def _probabilities(self, top: int, bottom: int, a: int, b: int) -> Tensor:
        """T[top:bottom, a:b] for b ≤ top."""
        factors = self._factors
        part = torch.mm(factors.left[top:bottom], factors.right[a:b].mT).exp_()
        return part.triu_(top - factors.window + 1 - a) if bottom - factors.window > a else part
