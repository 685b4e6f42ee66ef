"""What no other engine can hold, by products: softmax attention of long contexts, and derivatives."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import cast

import torch

from statesize.operators import Derivative, Operator, Shared, SoftmaxAttention
from statesize.operators.jacobian import Jacobian
from statesize.parallel.threads import end_if_unwanted
from statesize.spectra.cut import Cut
from statesize.spectra.engine import DOUBLE, SECONDS, Engine, Footprint
from statesize.spectra.exact.dense import attention_of
from statesize.spectra.implicit.attention import STRIP, AttentionProducts
from statesize.spectra.implicit.entropy_estimate import EntropyEstimate
from statesize.spectra.implicit.estimated_blocks import Estimated, EstimatedBlocks

# Bytes of T, and of single blocks with their copies, beyond which no other engine is tried.
_LARGE = 2**31
# Products with a block of attention until an interval is close enough: what was seen, about.
_PRODUCTS = 30
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
        """Infinity where T can be held, as other engines are certain."""
        if isinstance(operator, Derivative):
            return 0.0
        if DOUBLE * cut.readouts * cut.length**2 <= _LARGE:
            return math.inf
        # Rows of T are formed for each product, exponentials at the cost of some operations.
        width = cast("SoftmaxAttention", attention_of(operator)).query.shape[-1]
        return SECONDS * _PRODUCTS * cut.readouts * cut.length**2 * (width + _PROBES * len(cut.positions))

    @torch.no_grad()
    def blocks(self, operator: Operator, cut: Cut) -> EstimatedBlocks:
        """The blocks by passes over the rows of T, or of the function; without gradients."""
        positions = sorted(set(cut.positions))
        if isinstance(operator, Derivative):
            derivative, states = operator.to(device="cpu"), cast("list[int]", operator.state_size().tolist())
            entries = [
                [_of_derivative(derivative.jacobian(entry, i, i), i, states[i]) for i in positions]
                for entry in range(operator.batch_shape.numel())
            ]
        else:
            attention = cast("SoftmaxAttention", attention_of(operator))
            indices = itertools.product(*map(range, operator.batch_shape))
            entries = [self._of_attention(attention[index], positions, cut) for index in indices]
        places = [positions.index(i) for i in cut.positions]
        return EstimatedBlocks([[entry[k] for k in places] for entry in entries], operator.batch_shape, len(places))

    def _of_attention(self, heads: SoftmaxAttention, positions: list[int], cut: Cut) -> list[Estimated]:
        """What is known of H_i, of one head or of several one below another, at ascending positions."""
        early, late = _sides(positions, cut)
        blocks = _estimated(AttentionProducts(heads, early, by_rows=False)) if early else []
        if late:
            blocks += _estimated(AttentionProducts(heads, late, by_rows=True))[::-1]
        return blocks

    def footprint(self, operator: Operator, cut: Cut) -> Footprint:
        """The vectors of each position, and in a pass some of them and rows of T; or those of one derivative."""
        if isinstance(operator, Derivative):
            sides = [min(operator.inputs * i, operator.outputs * (cut.length - i)) for i in cut.positions]
            held = max((_most_of_derivative(side) * side for side in sides), default=0)
            ports = operator.inputs + operator.outputs
            return Footprint(DOUBLE * (_COPIES * held + _IN_PRODUCTS * cut.length * ports))
        r, (early, late) = cut.readouts, _sides(sorted(set(cut.positions)), cut)
        sides = early, [r * (cut.length - i) for i in late]
        held = max(sum(_most_vectors(size) * size for size in side) for side in sides)
        # No side of a block that is the smaller one is longer than r L / (r + 1).
        passing = (2 * STRIP + 2 * _PROBES * max(map(len, sides))) * (r * cut.length // (r + 1))
        # The tensors of the heads with their copies.
        width = cast("SoftmaxAttention", attention_of(operator)).query.shape[-1] + 2
        return Footprint(DOUBLE * (held + passing), 4 * DOUBLE * r * width * cut.length)


def _sides(positions: list[int], cut: Cut) -> tuple[list[int], list[int]]:
    """Ascending cuts whose columns are the shorter side, and those whose rows are, falling."""
    early = [i for i in positions if i <= cut.readouts * (cut.length - i)]
    return early, positions[len(early) :][::-1]


def _estimated(products: AttentionProducts) -> list[Estimated]:
    """What is known of each block of some cuts, which are measured at once."""
    norms, device = cast("list[float]", products.norms.tolist()), products.device
    estimates = [
        EntropyEstimate(n, _ACCURACY, _most_vectors(n), n if n <= _WHOLE else _PROBES, n) for n in products.sizes
    ]
    while not all(estimate.finished for estimate in estimates):
        found = products.gram([estimate.pending.to(device) for estimate in estimates])
        for estimate, product in zip(estimates, found, strict=True):
            if not estimate.finished:
                estimate.advance(product.cpu())
    values = zip(estimates, norms, products.sizes, strict=True)
    return [Estimated(estimate, norm, norm**2, size) for estimate, norm, size in values]


def _most_vectors(columns: int) -> int:
    return min(columns, max(_LEAST, _NUMBERS // columns))


def _most_of_derivative(dimension: int) -> int:
    return min(dimension, max(_FEWEST, min(_MOST, _NUMBERS_OF_DERIVATIVES // dimension)))


def _of_derivative(jacobian: Jacobian, seed: int, states: int) -> Estimated:
    """What is known of one H_i, which has at most the rank of the state."""
    dimension = jacobian.dimension
    probes = dimension if dimension <= _WHOLE else _PROBES
    estimate = EntropyEstimate(dimension, _OF_DERIVATIVES, _most_of_derivative(dimension), probes, seed)
    while not estimate.finished:
        end_if_unwanted()
        estimate.advance(jacobian.gram(estimate.pending))
    if estimate.exact:
        square = most = float(estimate.space.ritz.square().sum())
    else:
        squares = estimate.squared_norms()
        square, most = float(squares.mean()), float(squares.mean()) + estimate.traces.margin(squares)
    return Estimated(estimate, math.sqrt(max(0.0, square)), most, min(dimension, states))
