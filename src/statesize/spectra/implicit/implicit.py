"""What no other engine can hold, by products: softmax attention of long contexts, and derivatives."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import cast

import torch

from statesize.operators import Derivative, Operator, Shared, SoftmaxAttention
from statesize.spectra.cut import Cut
from statesize.spectra.engine import DOUBLE, Engine, Footprint
from statesize.spectra.exact.dense import attention_of
from statesize.spectra.implicit.attention import STRIP, AttentionProducts
from statesize.spectra.implicit.entropy_estimate import EntropyEstimate
from statesize.spectra.implicit.estimated_blocks import Estimated, EstimatedBlocks

# How close, relative to it, the interval of an entropy is to be, of attention and of derivatives, of which a state is
# soon known so well that less saves little.
_ACCURACY, _OF_DERIVATIVES = 0.1, 0.005
# Random vectors of a block; up to so many rows or columns, all singular values are computed instead.
_PROBES, _WHOLE = 8, 128
# Numbers that the vectors of a block of attention may be, and how many vectors at least; of a derivative, and at most.
_NUMBERS, _LEAST = 2**20, 192
_NUMBERS_OF_DERIVATIVES, _FEWEST, _MOST = 2**26, 32, 768
# Copies of them while they are made orthogonal, and copies of inputs and outputs while products are formed.
_COPIES, _IN_PRODUCTS = 3, 100


@dataclass(frozen=True)
class ImplicitEngine(Engine):
    """Counts and entropies from products with H_i: of attention a few rows of T at a time, and of derivatives."""

    name = "implicit"
    keeps_device = True
    outputs = frozenset(("counts", "entropy"))
    works_on = (SoftmaxAttention, Shared, Derivative)
    operators = "softmax attention, also of several readouts, and derivatives"

    def supports(self, operator: Operator) -> bool:
        """See `Engine.supports`; several readouts where each of them is softmax attention."""
        return attention_of(operator) is not None or isinstance(operator, Derivative)

    def seconds(self, operator: Operator, cut: Cut) -> float:
        """Infinity of attention: other engines are certain, while they fit into memory."""
        return 0.0 if isinstance(operator, Derivative) else math.inf

    @torch.no_grad()
    def blocks(self, operator: Operator, cut: Cut) -> EstimatedBlocks:
        """The blocks by passes over the rows of T, or of the function; without gradients."""
        found = list[Estimated]()
        for entry, index in enumerate(itertools.product(*map(range, operator.batch_shape))):
            at = dict[int, Estimated]()
            if isinstance(operator, Derivative):
                at |= {i: _of_derivative(operator, entry, i) for i in set(cut.positions)}
            else:
                heads = cast("SoftmaxAttention", attention_of(operator))[index]
                for positions, by_rows in zip(_sides(cut), (False, True), strict=True):
                    at |= zip(positions, _of_attention(heads, positions, by_rows=by_rows), strict=True)
            found += [at[i] for i in cut.positions]
        return EstimatedBlocks(found, (*operator.batch_shape, len(cut.positions)))

    def footprint(self, operator: Operator, cut: Cut) -> Footprint:
        """The vectors of each position, and in a pass some of them and rows of T; or those of one derivative."""
        if isinstance(operator, Derivative):
            sides = [min(operator.inputs * i, operator.outputs * (cut.length - i)) for i in cut.positions]
            held = max((_most_of_derivative(side) * side for side in sides), default=0)
            ports = operator.inputs + operator.outputs
            return Footprint(DOUBLE * (_COPIES * held + _IN_PRODUCTS * cut.length * ports))
        r, (early, late) = cut.readouts, _sides(cut)
        sides = early, [r * (cut.length - i) for i in late]
        held = max(sum(_most_vectors(size) * size for size in side) for side in sides)
        # No side of a block that is the smaller one is longer than r L / (r + 1).
        passing = (2 * STRIP + 2 * _PROBES * max(map(len, sides))) * (r * cut.length // (r + 1))
        # The tensors of the heads with their copies.
        width = cast("SoftmaxAttention", attention_of(operator)).query.shape[-1] + 2
        return Footprint(DOUBLE * (held + passing), 4 * DOUBLE * r * width * cut.length)


def _sides(cut: Cut) -> tuple[list[int], list[int]]:
    """Ascending cuts whose columns are the shorter side, and those whose rows are, falling."""
    positions = sorted(set(cut.positions))
    early = [i for i in positions if i <= cut.readouts * (cut.length - i)]
    return early, positions[len(early) :][::-1]


def _of_attention(heads: SoftmaxAttention, positions: list[int], *, by_rows: bool) -> list[Estimated]:
    """What is known of H_i, of one head or of several one below another; all positions are measured at once."""
    if not positions:
        return []
    products = AttentionProducts(heads, positions, by_rows=by_rows)
    estimates = [_estimate(n, _ACCURACY, _most_vectors(n), n) for n in products.sizes]
    while not all(estimate.finished for estimate in estimates):
        found = products.gram([estimate.pending.to(products.device) for estimate in estimates])
        for estimate, product in zip(estimates, found, strict=True):
            if not estimate.finished:
                estimate.advance(product.cpu())
    blocks = zip(estimates, cast("list[float]", products.norms.tolist()), products.sizes, strict=True)
    return [Estimated(estimate, norm, norm**2, n) for estimate, norm, n in blocks]


def _of_derivative(derivative: Derivative, entry: int, i: int) -> Estimated:
    """What is known of H_i of a batch entry, which has at most the rank of the state."""
    jacobian = derivative.to(device="cpu").jacobian(entry, i, i)
    n = jacobian.dimension
    estimate = _estimate(n, _OF_DERIVATIVES, _most_of_derivative(n), i)
    while not estimate.finished:
        estimate.advance(jacobian.gram(estimate.pending))
    squares = estimate.space.ritz.square().sum()[None] if estimate.exact else estimate.squared_norms()
    square = max(0.0, float(squares.mean()))
    most = square if estimate.exact else square + estimate.traces.margin(squares)
    return Estimated(estimate, math.sqrt(square), most, min(n, int(derivative.state_size()[i])))


def _estimate(n: int, accuracy: float, capacity: int, seed: int) -> EntropyEstimate:
    return EntropyEstimate(n, accuracy, capacity, n if n <= _WHOLE else _PROBES, seed)


def _most_vectors(columns: int) -> int:
    return min(columns, max(_LEAST, _NUMBERS // columns))


def _most_of_derivative(dimension: int) -> int:
    return min(dimension, max(_FEWEST, min(_MOST, _NUMBERS_OF_DERIVATIVES // dimension)))
