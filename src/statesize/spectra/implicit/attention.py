"""Softmax attention as products: from queries and keys, by blocks of rows or by thin factors."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn.functional import pad

from statesize.operators import SoftmaxAttention
from statesize.parallel.threads import end_if_unwanted

_linalg = cast("Any", torch.linalg)

ROWS = 256
"""Rows of T that are held at once."""
COLUMNS = 1024
"""Columns that are formed at once, few enough for a processor's cache."""

# The error of a score summed in single precision, in units of eps and of the largest terms; at most 0.4 was seen.
_SINGLE_ROUND_OFF = 4.0


@dataclass(frozen=True, eq=False)
class AttentionFactors:
    """T[i, j] = exp(left_i · right_j) for i − window < j ≤ i, 0 elsewhere; a cap bounds what d columns give of it."""

    left: Tensor  # (L, d + t), float64 or float32
    right: Tensor  # (L, d + t)
    window: int
    uncapped: int = 1  # t: log-sums of the rows, and before them a bias of the keys where there is one
    soft_cap: float | None = None

    @property
    def length(self) -> int:
        """Tokens, L."""
        return self.left.shape[0]

    def single(self) -> AttentionFactors:
        """In single precision."""
        return replace(self, left=self.left.float(), right=self.right.float())

    def transposed(self) -> AttentionFactors:
        """Tᵀ with its rows and columns in reverse order, whose H_{L−i} is H_iᵀ with both in reverse order."""
        return replace(self, left=self.right.flip(0), right=self.left.flip(0))

    def scores(self, rows: slice, columns: slice) -> Tensor:
        """Logarithms of T for some rows and columns, wherever a window or the diagonal lies."""
        return _scores(self.left[rows], self.right[columns], self.uncapped, self.soft_cap)

    def lost(self) -> float:
        """At most ‖H̃ − H‖_F / ‖H‖_F of the blocks in their own precision, against those in double precision."""
        if self.left.dtype == torch.float64:
            return 0.0
        # At most Σ_k |left_ik right_jk|: of the last columns one of the two has ones, the other log-sums or a bias;
        # what is before them is bounded by its norms.
        parts, last = (self.left, self.right), self.uncapped
        products = [part[:, :-last].square().sum(-1).amax().sqrt() for part in parts]
        sums = [part[:, -last:].abs().amax(0) for part in parts]
        scores = float(products[0] * products[1])
        capped = 0.0 if self.soft_cap is None else min(scores, self.soft_cap)
        return _SINGLE_ROUND_OFF * torch.finfo(torch.float32).eps * (scores + capped + float(sums[0] @ sums[1]))

    def fill(self, tile: Tensor, top: int) -> Tensor:
        """T[top:, :b] for b ≤ top, written into a tile of its shape."""
        rows, columns = tile.shape
        for a in range(0, columns, COLUMNS):
            tile[:, a : a + COLUMNS] = self.scores(slice(top, top + rows), slice(a, min(a + COLUMNS, columns))).exp_()
        return tile.triu_(top - self.window + 1) if top + rows - self.window > 0 else tile


def factorised(head: SoftmaxAttention, positions: Sequence[int]) -> tuple[AttentionFactors, Tensor]:
    """The factors of one head, and ln ‖H_i‖_F² at ascending positions, (P,), all in float64."""
    left, right, length = head.query * head.scale, head.key, head.length
    if head.key_bias is not None:
        left, right = pad(left, (0, 1), value=1.0), torch.cat([right, head.key_bias[:, None]], -1)
    uncapped = left.shape[-1] - head.query.shape[-1]
    window = head.window or length
    sums = left.new_empty(length)
    energy = left.new_full((len(positions),), -torch.inf)
    for top, bottom in itertools.pairwise(sorted({*positions, *range(0, length, ROWS), length})):
        end_if_unwanted()
        reached = [position for position in positions if position <= top]
        first = max(0, top - window + 1)
        ends = sorted({first, bottom, *range(first, bottom, COLUMNS), *(i for i in reached if i > first)})
        parts = [
            _summed(_scores(left[top:bottom], right[a:b], uncapped, head.soft_cap), top - a, window)
            for a, b in itertools.pairwise(ends)
        ]
        logarithms, squares = (torch.stack(part) for part in zip(*parts, strict=True))
        sums[top:bottom] = logarithms.logsumexp(0)
        if head.sink is not None:
            sums[top:bottom] = torch.logaddexp(sums[top:bottom], head.sink)
        energies = (squares - 2 * sums[top:bottom]).logsumexp(-1).logcumsumexp(0)
        for row, position in enumerate(reached):
            if position > first:
                energy[row] = energy[row].logaddexp(energies[ends.index(position) - 1])
    left, right = torch.cat([left, -sums[:, None]], -1), pad(right, (0, 1), value=1.0)
    return AttentionFactors(left, right, window, uncapped + 1, head.soft_cap), energy


def _scores(left: Tensor, right: Tensor, uncapped: int, soft_cap: float | None) -> Tensor:
    """Products of rows, but for the last `uncapped` of their columns no larger than the cap."""
    if soft_cap is None:
        return torch.mm(left, right.mT)
    width = left.shape[-1] - uncapped
    scores = torch.mm(left[:, :width], right[:, :width].mT).div_(soft_cap).tanh_().mul_(soft_cap)
    return scores.addmm_(left[:, width:], right[:, width:].mT) if uncapped else scores


def _summed(scores: Tensor, lag: int, window: int) -> tuple[Tensor, Tensor]:
    """Log-sums of scores and of twice the scores, over the keys that rows see; `lag` is from first key to first row."""
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
    formed in the precision of its factors for each product; products are in double precision all the same.
    """

    def __init__(self, heads: Sequence[AttentionFactors], positions: Sequence[int], *, side_by_side: bool) -> None:
        self._bands = [list(heads)] if side_by_side else [[head] for head in heads]
        self._length, self._positions = heads[0].length, list(positions)
        self._across = len(self._bands[0])
        size = self._across * min(ROWS, self._length) * self._positions[-1]
        self._formed = heads[0].left.new_empty(size, dtype=torch.float64)

    def gram(self, blocks: Sequence[Tensor]) -> list[Tensor]:
        """H_iᵀ H_i x for float64 vectors x in rows, (k_i, columns) at each position; k_i may be 0."""
        nonempty = [(i, block) for i, block in zip(self._positions, blocks, strict=True) if block.shape[0]]
        positions = [i for i, _ in nonempty]
        ends = [0, *itertools.accumulate(block.shape[0] for _, block in nonempty)]
        # The vectors of all positions, with zeros behind: in the columns of a slab, those of later positions count.
        width = positions[-1] if positions else 0
        vectors = self._formed.new_zeros(self._across, ends[-1], width)
        for (i, block), first, end in zip(nonempty, ends, ends[1:], strict=False):
            vectors[:, first:end, :i] = block.unflatten(-1, (self._across, i)).movedim(0, 1)
        products = torch.zeros_like(vectors)
        # In the columns of a strip, the vectors from one on count.
        strips = [(a, b, first) for (a, b), first in zip(itertools.pairwise([0, *positions]), ends, strict=False)]
        # Rows, from one to another, that belong to the same blocks.
        borders = sorted({*self._positions, *range(0, self._length, ROWS), self._length})
        for top, bottom in itertools.pairwise(borders):
            reached = sum(position <= top for position in positions)
            if reached:
                end_if_unwanted()
                end = ends[reached]
                for band in self._bands:
                    self._add_products(band, top, bottom, strips[:reached], vectors[:, :end], products[:, :end])
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
        strips: Sequence[tuple[int, int, int]],
        vectors: Tensor,
        products: Tensor,
    ) -> None:
        """Add Rᵀ R x for the rows R of heads side by side."""
        tiles = [self._tile(factors, top, bottom, place, strips[-1][1]) for place, factors in enumerate(band)]
        y = vectors.new_zeros(vectors.shape[1], bottom - top)
        for tile, x in zip(tiles, vectors, strict=True):
            for a, b, first in strips:
                y[first:].addmm_(x[first:, a:b], tile[:, a:b].mT)
        for tile, product in zip(tiles, products, strict=True):
            for a, b, first in strips:
                product[first:, a:b].addmm_(y[first:], tile[:, a:b])

    def _tile(self, factors: AttentionFactors, top: int, bottom: int, place: int, wanted: int) -> Tensor:
        """T[top:bottom] up to a column that is wanted."""
        first = place * (len(self._formed) // self._across)
        return factors.fill(self._formed[first : first + (bottom - top) * wanted].view(-1, wanted), top)
