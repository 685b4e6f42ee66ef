"""What no other engine can hold, by products: softmax attention of long contexts, and derivatives."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch

from statesize.operators import Derivative, Operator, SoftmaxAttention
from statesize.spectra.cut import Cut
from statesize.spectra.engine import DOUBLE, Engine
from statesize.spectra.implicit.attention import ROWS, AttentionFactors, AttentionRows, factorised
from statesize.spectra.implicit.derivative import DerivativeBlocks, footprint
from statesize.spectra.implicit.entropy_estimate import EntropyEstimate
from statesize.spectra.implicit.estimated_blocks import Estimated, EstimatedBlocks

# Bytes of T from which on no other engine is tried.
_LARGE = 2**31
# Numbers that the vectors of any block may be.
_FEW = 2**20


@dataclass(frozen=True)
class ImplicitEngine(Engine):
    """Counts and entropies from products with H_i: of softmax attention a few rows of T at a time, and of derivatives.

    Attributes:
        accuracy: Of attention: how close, relative to it, the interval of an entropy is to be; closer ones are not
            computed.
        products: Likewise: of a long H_i at most, which is also how many vectors are held of it.
        whole: Likewise: up to this many columns, all singular values are computed instead.
        single_from: Likewise: length from which on scores are formed in single precision, which bounds then allow for.
    """

    accuracy: float = 0.1
    products: int = 192
    whole: int = 128
    single_from: int = 8192

    name = "implicit"
    outputs = frozenset(("counts", "entropy"))
    works_on = (SoftmaxAttention, Derivative)
    operators = "softmax attention and derivatives"
    cost = (
        "O(L² (d + P)) a product, of which some 10 to 30 make an interval of 95 % at P positions; of a derivative some "
        "400 at each"
    )

    def slower_reason(self, operator: Operator, cut: Cut, outputs: tuple[str, ...]) -> str | None:
        """Where T can be held, other engines are certain."""
        if isinstance(operator, Derivative):
            return None
        size = DOUBLE * cut.length**2
        return None if size > _LARGE else f"only probable, and T takes {size / 1e9:.1f} GB, which others can hold"

    @torch.no_grad()
    def blocks(self, operator: Operator, cut: Cut) -> EstimatedBlocks:
        """The blocks by passes over the rows of T, or of the function; without gradients."""
        if isinstance(operator, Derivative):
            return DerivativeBlocks(operator, cut)
        return AttentionBlocks(self, cast("SoftmaxAttention", operator), cut)

    def most_products(self, columns: int) -> int:
        """How many products of a block are taken, and so many vectors held, at most."""
        return min(columns, max(self.products, _FEW // columns))

    def footprint(self, operator: Operator, cut: Cut) -> int:
        """The vectors of early positions, or later those of late ones, and in a pass some of them and rows of T."""
        if isinstance(operator, Derivative):
            return footprint(operator, cut)
        early, late = _sides(sorted(set(cut.positions)), cut.length)
        held = max(sum(self.most_products(i) * i for i in sides) for sides in (early, late))
        requested = max(len(early), len(late))
        return DOUBLE * (held + (ROWS + 8 * requested) * cut.length // 2)

    def shared_footprint(self, operator: Operator, cut: Cut) -> int:
        """The factors of T with their copies."""
        if isinstance(operator, Derivative):
            return 0
        attention = cast("SoftmaxAttention", operator)
        return 4 * DOUBLE * (attention.query.shape[-1] + 1 + (attention.key_bias is not None)) * cut.length


class AttentionBlocks(EstimatedBlocks):
    """The blocks of softmax attention."""

    def __init__(self, engine: ImplicitEngine, operator: SoftmaxAttention, cut: Cut) -> None:
        super().__init__(operator, cut)
        self._engine, self._attention = engine, operator

    def _estimated(self) -> list[list[Estimated]]:
        attention = self._attention
        entries = itertools.product(*map(range, attention.batch_shape))
        return [self._head(attention[entry]) for entry in entries]

    def _head(self, head: SoftmaxAttention) -> list[Estimated]:
        """What is known of H_i at ascending positions, by whichever side of H_i is smaller."""
        factors, energy = factorised(head, self._positions)
        squares = [float(square) for square in energy]
        # A bias such as that of ALiBi grows with the length, and is more than single precision can subtract.
        if head.length >= self._engine.single_from and head.key_bias is None:
            factors = factors.single()
        early, late = _sides(self._positions, head.length)
        norms = [square**0.5 for square in squares]
        estimates = self._of_sides(factors, early, norms[: len(early)])
        if late:
            estimates += self._of_sides(factors.transposed(), late, norms[len(early) :][::-1])[::-1]
        return [
            Estimated(estimate, norm, square, min(i, head.length - i))
            for i, estimate, norm, square in zip(self._positions, estimates, norms, squares, strict=True)
        ]

    def _of_sides(self, factors: AttentionFactors, sizes: list[int], norms: list[float]) -> list[EntropyEstimate]:
        """Of blocks with so many columns, all at once."""
        if not sizes:
            return []
        engine, device = self._engine, self._attention.device
        lost, rows = factors.lost(), AttentionRows(factors, sizes)
        estimates = [
            EntropyEstimate(
                i,
                engine.accuracy,
                engine.most_products(i),
                probes=i if i <= engine.whole else 4,
                seed=i,
                lost=lost * norm,
            )
            for i, norm in zip(sizes, norms, strict=True)
        ]
        while not all(estimate.finished for estimate in estimates):
            wanted = [estimate.pending[:0] if estimate.finished else estimate.pending for estimate in estimates]
            products = rows.gram([vectors.to(device) for vectors in wanted])
            for estimate, product in zip(estimates, products, strict=True):
                if not estimate.finished:
                    estimate.advance(product.cpu())
        return estimates


def _sides(positions: Sequence[int], length: int) -> tuple[list[int], list[int]]:
    """Of ascending positions the columns of blocks that have no more than rows, and the rows of the others, rising."""
    return [i for i in positions if 2 * i <= length], [length - i for i in positions[::-1] if 2 * i > length]
