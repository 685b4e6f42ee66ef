"""Softmax attention as products: from queries and keys, by blocks of rows or by thin factors."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

from statesize.operators import SoftmaxAttention
from statesize.parallel.threads import end_if_unwanted

_linalg = cast("Any", torch.linalg)

ROWS = 256
"""Rows of T that are held at once."""
COLUMNS = 1024
"""Columns that are formed at once, few enough for a processor's cache."""

# Of a score summed in single precision, in units of eps and of the largest terms; 0.4 was the most that was seen.
_SINGLE_ROUND_OFF = 4.0


@dataclass(frozen=True, eq=False)
class AttentionFactors:
    """T[i, j] = exp(left_i · right_j) for i − window < j ≤ i, 0 elsewhere."""

    left: Tensor  # (L, d + 1), float64 or float32
    right: Tensor  # (L, d + 1)
    window: int

    @property
    def length(self) -> int:
        """Tokens, L."""
        return self.left.shape[0]

    def single(self) -> AttentionFactors:
        """In single precision."""
        return AttentionFactors(self.left.float(), self.right.float(), self.window)

    def transposed(self) -> AttentionFactors:
        """Of Tᵀ with its rows and columns in reverse order, whose H_{L−i} is H_iᵀ with both in reverse order."""
        return AttentionFactors(self.right.flip(0), self.left.flip(0), self.window)

    def lost(self) -> float:
        """At most ‖H̃ − H‖_F / ‖H‖_F of the blocks in their own precision, against those in double precision."""
        if self.left.dtype == torch.float64:
            return 0.0
        # At most Σ_k |left_ik right_jk|: one of the two has a last column of ones, the other the log-sums; what is
        # before them is bounded by its norms.
        products = [part[:, :-1].square().sum(-1).amax().sqrt() for part in (self.left, self.right)]
        sums = [part[:, -1].abs().amax() for part in (self.left, self.right)]
        return _SINGLE_ROUND_OFF * torch.finfo(torch.float32).eps * float(products[0] * products[1] + sums[0] * sums[1])

    def probabilities(self, top: int, bottom: int, a: int, b: int) -> Tensor:
        """T[top:bottom, a:b] for b ≤ top."""
        part = torch.mm(self.left[top:bottom], self.right[a:b].mT).exp_()
        return part.triu_(top - self.window + 1 - a) if bottom - self.window > a else part


def factorised(head: SoftmaxAttention, positions: Sequence[int]) -> tuple[AttentionFactors, Tensor]:
    """The factors of one head, and ‖H_i‖_F² at ascending positions, (P,), all in float64."""
    query, key, length = head.query * head.scale, head.key, head.length
    window = head.window or length
    sums = query.new_empty(length)
    energy = query.new_zeros(len(positions))
    for top, bottom in itertools.pairwise(sorted({*positions, *range(0, length, ROWS), length})):
        end_if_unwanted()
        reached = [position for position in positions if position <= top]
        first = max(0, top - window + 1)
        ends = sorted({first, bottom, *range(first, bottom, COLUMNS), *(i for i in reached if i > first)})
        parts = [_summed(query[top:bottom], key[a:b], top - a, window) for a, b in itertools.pairwise(ends)]
        logarithms, squares = (torch.stack(part) for part in zip(*parts, strict=True))
        sums[top:bottom] = logarithms.logsumexp(0)
        energies = (squares - 2 * sums[top:bottom]).exp().sum(-1).cumsum(0)
        for row, position in enumerate(reached):
            if position > first:
                energy[row] += energies[ends.index(position) - 1]
    left = torch.cat([query, -sums[:, None]], -1)
    return AttentionFactors(left, torch.nn.functional.pad(key, (0, 1), value=1.0), window), energy


def _summed(query: Tensor, key: Tensor, lag: int, window: int) -> tuple[Tensor, Tensor]:
    """Log-sums of scores and of twice the scores, over the keys that rows see; `lag` is from first key to first row."""
    scores = query @ key.mT
    rows, columns = scores.shape
    if columns > lag + 1:
        scores.masked_fill_(_ones(scores).triu_(lag + 1), -torch.inf)
    if lag + rows > window:
        scores.masked_fill_(_ones(scores).tril_(lag - window), -torch.inf)
    # Rows that see none of the keys have no largest score.
    largest = scores.amax(-1).clamp(min=torch.finfo(scores.dtype).min)
    shares = scores.sub_(largest[:, None]).exp_()
    total = shares.sum(-1)
    energy: Tensor = _linalg.vector_norm(shares, dim=-1).square()
    return total.log() + largest, energy.log() + 2 * largest


def _ones(like: Tensor) -> Tensor:
    return torch.ones_like(like, dtype=torch.bool)


class AttentionRows:
    """H_i = T[i:, :i] at ascending positions of one head, or of several as one block, for products with H_iᵀ H_i.

    Heads that stand one below another have one x for all, heads that stand side by side have a part of x each. T is
    formed in the precision of its factors, products are in double precision all the same; single precision takes a
    third off a pass.
    """

    def __init__(self, heads: Sequence[AttentionFactors], positions: Sequence[int], *, side_by_side: bool) -> None:
        self._bands = [list(heads)] if side_by_side else [[head] for head in heads]
        self._length, self._positions = heads[0].length, list(positions)
        self._across = len(self._bands[0])
        self._rows = heads[0].left.new_empty(self._across, min(ROWS, self._length), self._positions[-1])

    def gram(self, blocks: Sequence[Tensor]) -> list[Tensor]:
        """H_iᵀ H_i x for float64 vectors x in rows, (k_i, columns) at each position; k_i may be 0."""
        nonempty = [(i, block) for i, block in zip(self._positions, blocks, strict=True) if block.shape[0]]
        positions = [i for i, _ in nonempty]
        ends = [0, *itertools.accumulate(block.shape[0] for _, block in nonempty)]
        # The vectors of all positions, with zeros behind: in the columns of a slab, those of later positions count.
        width = positions[-1] if positions else 0
        vectors = self._rows.new_zeros(self._across, ends[-1], width, dtype=torch.float64)
        for (i, block), first, end in zip(nonempty, ends, ends[1:], strict=False):
            vectors[:, first:end, :i] = block.unflatten(-1, (self._across, i)).movedim(0, 1)
        products = torch.zeros_like(vectors)
        # In the columns of a piece, the blocks from one on.
        pieces = [
            (a, min(a + COLUMNS, border), first)
            for (left, border), first in zip(itertools.pairwise([0, *positions]), ends, strict=False)
            for a in range(left, border, COLUMNS)
        ]
        for top, bottom, reached in self._row_blocks(positions):
            seen = [piece for piece in pieces if piece[1] <= positions[reached - 1]]
            for band in self._bands:
                self._add_products(band, top, bottom, seen, vectors[:, : ends[reached]], products[:, : ends[reached]])
        measured = {
            i: products[:, first:end, :i].movedim(1, 0).flatten(1)
            for i, (first, end) in zip(positions, itertools.pairwise(ends), strict=True)
        }
        return [measured.get(i, block) for i, block in zip(self._positions, blocks, strict=True)]

    def _add_products(
        self,
        band: Sequence[AttentionFactors],
        top: int,
        bottom: int,
        pieces: Sequence[tuple[int, int, int]],
        vectors: Tensor,
        products: Tensor,
    ) -> None:
        """Add Rᵀ R x for the rows R of heads side by side."""
        rows = self._rows[:, : bottom - top]
        y = vectors.new_zeros(bottom - top, vectors.shape[1])
        for factors, tile, x in zip(band, rows, vectors, strict=True):
            for a, b, first in pieces:
                part = factors.probabilities(top, bottom, a, b)
                tile[:, a:b] = part
                y[:, first:] += part.double() @ x[first:, a:b].mT
        for tile, product in zip(rows, products, strict=True):
            for a, b, first in pieces:
                product[first:, a:b] += y[:, first:].mT @ tile[:, a:b].double()

    def _row_blocks(self, positions: Sequence[int]) -> Iterator[tuple[int, int, int]]:
        """Rows, from one to another, and how many of the positions have H_i with them."""
        length = self._length
        for top, bottom in itertools.pairwise(sorted({*positions, *range(0, length, ROWS), length})):
            reached = sum(position <= top for position in positions)
            if reached:
                end_if_unwanted()
                yield top, bottom, reached
