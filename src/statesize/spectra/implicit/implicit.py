"""What no other engine can hold, by products: softmax attention of long contexts, and derivatives."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch

from statesize.operators import Derivative, Operator, Shared, SoftmaxAttention
from statesize.spectra.cut import Cut
from statesize.spectra.engine import DOUBLE, SECONDS, Engine, Footprint, attention_of
from statesize.spectra.implicit.attention import ROWS, AttentionFactors, AttentionRows, factorised
from statesize.spectra.implicit.derivative import DerivativeBlocks, derivative_footprint
from statesize.spectra.implicit.entropy_estimate import EntropyEstimate
from statesize.spectra.implicit.estimated_blocks import Estimated, EstimatedBlocks

# Bytes of T, and of single blocks with their copies, beyond which no other engine is tried.
_LARGE = 2**31
# Products with a block of attention, of two passes each, until an interval is close enough: what was seen, about.
_PRODUCTS = 40
# Numbers that the vectors of any block may be.
_FEW = 2**20


@dataclass(frozen=True)
class ImplicitEngine(Engine):
    """Counts and entropies from products with H_i: of softmax attention a few rows of T at a time, and of derivatives.

    Attributes:
        accuracy: How close, relative to it, the interval of an entropy of attention is to be; closer ones are not
            computed. The next three are of attention too.
        products: With a long H_i, at most; as many vectors are held of it.
        whole: Up to this many columns, all singular values are computed instead.
        single_from: Length from which on scores are formed in single precision, which bounds then allow for; not where
            torch is set to multiply in less.
        probes: Random vectors of a block of attention, at first.
    """

    accuracy: float = 0.1
    products: int = 192
    whole: int = 128
    single_from: int = 8192
    probes: int = 4

    name = "implicit"
    keeps_device = True
    outputs = frozenset(("counts", "entropy"))
    works_on = (SoftmaxAttention, Shared, Derivative)
    operators = "softmax attention, also of several readouts, and derivatives"

    def supports(self, operator: Operator) -> bool:
        """See `Engine.supports`; several readouts where each of them is softmax attention."""
        return attention_of(operator) is not None or isinstance(operator, Derivative)

    def seconds(self, operator: Operator, cut: Cut) -> float:
        """Infinity where T can be held, as other engines are certain."""
        if isinstance(operator, Derivative):
            return 0.0
        if DOUBLE * cut.readouts * cut.length**2 <= _LARGE:
            return math.inf
        return SECONDS * self.operations(operator, cut)

    def operations(self, operator: Operator, cut: Cut) -> float:
        """About how many operations of products of matrices take as long, for one batch entry of attention."""
        width = cast("SoftmaxAttention", attention_of(operator)).query.shape[-1]
        # Rows of T are formed in each of two passes a product, exponentials at the cost of some operations.
        return 2.0 * _PRODUCTS * cut.readouts * cut.length**2 * (width + len(cut.positions))

    @torch.no_grad()
    def blocks(self, operator: Operator, cut: Cut) -> EstimatedBlocks:
        """The blocks by passes over the rows of T, or of the function; without gradients."""
        if isinstance(operator, Derivative):
            return DerivativeBlocks(operator.to(device="cpu"), cut)
        return AttentionBlocks(self, cast("SoftmaxAttention | Shared", operator), cut)

    def most_products(self, columns: int) -> int:
        """How many products of a block are taken, and so many vectors held, at most."""
        return min(columns, max(self.products, _FEW // columns))

    def footprint(self, operator: Operator, cut: Cut) -> Footprint:
        """The vectors of early positions, or later those of late ones, and in a pass some of them and rows of T."""
        if isinstance(operator, Derivative):
            return derivative_footprint(operator, cut)
        r = cut.readouts
        early, late = _sides(sorted(set(cut.positions)), cut.length, r)
        sides = early, [r * size for size in late]
        held = max(sum(self.most_products(columns) * columns for columns in side) for side in sides)
        requested = max(len(early), len(late))
        # No side of a block that is the smaller one is longer than r L / (r + 1).
        each = DOUBLE * (held + (ROWS + 2 * self.probes * requested) * (r * cut.length // (r + 1)))
        # The factors of T with their copies.
        head = cast("SoftmaxAttention", attention_of(operator))
        columns = head.query.shape[-1] + 1 + (head.key_bias is not None)
        return Footprint(each, 4 * DOUBLE * r * columns * cut.length)


class AttentionBlocks(EstimatedBlocks):
    """The blocks of softmax attention: of each head, or of the stack of several readouts of one input."""

    def __init__(self, engine: ImplicitEngine, operator: SoftmaxAttention | Shared, cut: Cut) -> None:
        super().__init__(operator, cut)
        self._engine, self._readouts = engine, cut.readouts
        self._attention = cast("SoftmaxAttention", attention_of(operator))

    @torch.no_grad()
    def _estimated(self) -> list[list[Estimated]]:
        blocks = [self._attention[entry] for entry in itertools.product(*map(range, self._operator.batch_shape))]
        if isinstance(self._operator, Shared):
            return [self._stack([block[head] for head in range(self._readouts)]) for block in blocks]
        return [self._stack([head]) for head in blocks]

    def _stack(self, heads: Sequence[SoftmaxAttention]) -> list[Estimated]:
        """What is known of H_i, of heads one below another, at ascending positions, by whichever side is smaller."""
        made = [factorised(head, self._positions) for head in heads]
        factors, length = [one for one, _ in made], heads[0].length
        energies = torch.stack([energy for _, energy in made]).logsumexp(0)
        squares, norms = ([float(one) for one in part.exp()] for part in (energies, energies / 2))
        # A bias such as that of ALiBi grows with the length, and is more than single precision can subtract.
        single = length >= self._engine.single_from and heads[0].key_bias is None
        # Where torch multiplies in TF32 or bfloat16, no bound says what scores lose.
        if single and torch.get_float32_matmul_precision() == "highest":
            factors = [one.single() for one in factors]
        early, late = _sides(self._positions, length, self._readouts)
        estimates = self._of_sides(factors, early, norms[: len(early)], side_by_side=False)
        if late:
            # Where one head stands under another, their transposes stand side by side.
            transposed = [one.transposed() for one in factors]
            estimates += self._of_sides(transposed, late, norms[len(early) :][::-1], side_by_side=True)[::-1]
        return [
            Estimated(estimate, norm, square, min(i, self._readouts * (length - i)))
            for i, estimate, norm, square in zip(self._positions, estimates, norms, squares, strict=True)
        ]

    def _of_sides(
        self, factors: list[AttentionFactors], sizes: list[int], norms: list[float], *, side_by_side: bool
    ) -> list[EntropyEstimate]:
        """Measures blocks with so many columns of each head, all at once."""
        if not sizes:
            return []
        engine, device = self._engine, self._attention.device
        lost = max(one.lost() for one in factors)
        rows = AttentionRows(factors, sizes, side_by_side=side_by_side)
        columns = [size * len(factors) if side_by_side else size for size in sizes]
        estimates = [
            EntropyEstimate(
                n,
                engine.accuracy,
                engine.most_products(n),
                probes=n if n <= engine.whole else engine.probes,
                seed=n,
                lost=lost * norm,
            )
            for n, norm in zip(columns, norms, strict=True)
        ]
        while not all(estimate.finished for estimate in estimates):
            wanted = [estimate.pending[:0] if estimate.finished else estimate.pending for estimate in estimates]
            products = rows.gram([vectors.to(device) for vectors in wanted])
            for estimate, product in zip(estimates, products, strict=True):
                if not estimate.finished:
                    estimate.advance(product.cpu())
        return estimates


def _sides(positions: Sequence[int], length: int, readouts: int) -> tuple[list[int], list[int]]:
    """Splits ascending cuts by which side of H_i is shorter: columns i, and rows L − i of the others, rising."""
    early = [i for i in positions if i <= readouts * (length - i)]
    return early, [length - i for i in positions[len(early) :][::-1]]
