"""Derivatives of long sequences, from products with their blocks."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import cast

from statesize.operators import Derivative, Operator
from statesize.operators.jacobian import Jacobian
from statesize.parallel.threads import end_if_unwanted
from statesize.spectra.cut import Cut
from statesize.spectra.engine import DOUBLE, Engine
from statesize.spectra.implicit.entropy_estimate import EntropyEstimate
from statesize.spectra.implicit.estimated_blocks import Estimated, EstimatedBlocks

# Numbers that the vectors of a block may be, and the fewest and most vectors.
_NUMBERS, _FEWEST, _MOST = 2**26, 32, 768
# Copies of them while they are made orthogonal, and copies of inputs and outputs while products are formed.
_COPIES, _IN_PRODUCTS = 3, 400


@dataclass(frozen=True)
class DerivativeEngine(Engine):
    """Counts and entropies of derivatives from products with H_i and its transpose.

    Attributes:
        accuracy: How close, relative to it, the interval of an entropy is to be.
        whole: Up to this many rows or columns, all singular values are computed instead.
    """

    accuracy: float = 0.005
    whole: int = 128

    name = "derivative"
    outputs = frozenset(("counts", "entropy"))
    works_on = (Derivative,)
    operators = "derivatives"
    cost = "some 100 to 400 derivatives of the function at each position for an interval of 95 %"

    def blocks(self, operator: Operator, cut: Cut) -> DerivativeBlocks:
        """The blocks by products; without gradients."""
        return DerivativeBlocks(self, cast("Derivative", operator), cut)

    def most_products(self, dimension: int) -> int:
        """How many products of a block are taken, and so many vectors held, at most."""
        return min(dimension, max(_FEWEST, min(_MOST, _NUMBERS // dimension)))

    def footprint(self, operator: Operator, cut: Cut) -> int:
        """The vectors of one block, and what the function leaves for its derivatives."""
        derivative = cast("Derivative", operator)
        inputs, outputs = derivative.inputs, derivative.outputs
        dimensions = [min(inputs * i, outputs * (cut.length - i)) for i in cut.positions]
        held = max(self.most_products(dimension) * dimension for dimension in dimensions)
        return DOUBLE * (_COPIES * held + _IN_PRODUCTS * cut.length * (inputs + outputs))


class DerivativeBlocks(EstimatedBlocks):
    """The blocks of a derivative."""

    def __init__(self, engine: DerivativeEngine, operator: Derivative, cut: Cut) -> None:
        super().__init__(operator, cut)
        self._engine, self._derivative = engine, operator

    def _estimated(self) -> list[list[Estimated]]:
        derivative, states = self._derivative, self._derivative.state_size()
        return [
            [self._block(derivative.jacobian(entry, i, i), i, int(states[i])) for i in self._positions]
            for entry in range(derivative.batch_shape.numel())
        ]

    def _block(self, jacobian: Jacobian, seed: int, states: int) -> Estimated:
        """What is known of one H_i, which has at most the rank of the state."""
        dimension, engine = jacobian.dimension, self._engine
        probes = dimension if dimension <= engine.whole else 8
        estimate = EntropyEstimate(dimension, engine.accuracy, engine.most_products(dimension), probes, seed)
        while not estimate.finished:
            end_if_unwanted()
            estimate.advance(jacobian.gram(estimate.pending))
        if estimate.exact:
            square = most = float(estimate.space.ritz.square().sum())
        else:
            squares = estimate.squared_norms()
            square = float(squares.mean())
            most = square + estimate.probes.margin(squares)
        return Estimated(estimate, math.sqrt(square), most, min(dimension, states))
