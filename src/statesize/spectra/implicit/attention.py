"""Softmax attention as products with its blocks, from queries and keys, a few rows of T at a time."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import cast

import torch
from torch import Tensor
from torch.nn.functional import pad

from statesize.operators import SoftmaxAttention
from statesize.spectra.factorisation import frobenius_norm

STRIP = 256
"""Rows or columns of T that are held at once."""


class AttentionProducts:
    """Products with H_iᵀ H_i, or with H_i H_iᵀ, of H_i = T[i:, :i] of one head or of the stack of several.

    T is formed anew for each product.

    Attributes:
        sizes: Columns of each H_i, or its rows, which stand from the last to the first; rising, as cuts are given.
        norms: ‖H_i‖_F, (P,).
    """

    def __init__(self, attention: SoftmaxAttention, cuts: Sequence[int], *, by_rows: bool) -> None:
        self._attention, self._sums, self._cuts, self._by_rows = attention, attention.log_sums(), list(cuts), by_rows
        self._heads, self.device = attention.batch_shape.numel(), attention.device
        self.sizes = [self._heads * (attention.length - i) if by_rows else i for i in cuts]
        self.norms = torch.zeros(len(self._cuts), dtype=torch.float64)
        for reached, first, tile in self._tiles(len(self._cuts)):
            norm = self.norms[0].new_zeros(())
            for place, (a, b) in enumerate(itertools.pairwise([0, *self.sizes[:reached]])):
                norm = norm.hypot(frobenius_norm(tile[:, max(0, a - first) : max(0, b - first)]).cpu())
                self.norms[place] = self.norms[place].hypot(norm)

    def gram(self, blocks: Sequence[Tensor]) -> list[Tensor]:
        """The products with float64 vectors in rows, (k_i, size) for each cut; k_i may be 0."""
        counts = [len(block) for block in blocks]
        most = 1 + max(place for place, count in enumerate(counts) if count)
        ends, width = [0, *itertools.accumulate(counts)], self.sizes[most - 1]
        # The vectors of all cuts, with zeros behind.
        vectors = torch.cat([pad(block, (0, width - block.shape[1])) for block in blocks[:most]])
        products = torch.zeros_like(vectors)
        for reached, first, tile in self._tiles(most):
            entries = slice(first, first + tile.shape[1])
            products[: ends[reached], entries].addmm_(vectors[: ends[reached], entries] @ tile.mT, tile)
        parts = cast("tuple[Tensor, ...]", products.split(counts[:most]))
        return [*(part[:, :size] for size, part in zip(self.sizes, parts, strict=False)), *blocks[most:]]

    def _tiles(self, most: int) -> Iterator[tuple[int, int, Tensor]]:
        """Strips of T, (m, entries): of how many of the first cuts, and from which entry on."""
        length, cuts = self._attention.length, self._cuts[:most]
        window = self._attention.window or length
        ends = {*cuts, *range(0, length, STRIP), length}
        for a, b in itertools.pairwise(sorted(ends)):
            if not self._by_rows:
                reached = sum(i <= a for i in cuts)
                first, last = max(0, a - window + 1), max(cuts[:reached], default=0)
                if first < last:
                    yield reached, first, self._block(slice(a, b), slice(first, last)).flatten(0, 1)
            elif reached := sum(i >= b for i in cuts):
                rows = slice(min(cuts[:reached]), min(length, b - 1 + window))
                if rows.start < rows.stop:
                    tile = self._block(rows, slice(a, b)).flip(1).permute(2, 1, 0)
                    yield reached, self._heads * (length - rows.stop), tile.reshape(b - a, -1)

    def _block(self, rows: slice, columns: slice) -> Tensor:
        """(heads, rows, columns)."""
        scores = self._attention.scores(rows, columns.start, columns.stop)
        return scores.sub_(self._sums[..., rows, None]).exp_().reshape(self._heads, *scores.shape[-2:])
