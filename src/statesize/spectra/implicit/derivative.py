"""Derivatives of long sequences, from products with their blocks."""

from __future__ import annotations

import math

from statesize.operators import Derivative
from statesize.operators.jacobian import Jacobian
from statesize.parallel.threads import end_if_unwanted
from statesize.spectra.cut import Cut
from statesize.spectra.engine import DOUBLE, Footprint
from statesize.spectra.implicit.entropy_estimate import EntropyEstimate
from statesize.spectra.implicit.estimated_blocks import Estimated, EstimatedBlocks

# How close, relative to it, the interval of an entropy is to be; a state is soon known so well that less saves little.
_ACCURACY = 0.005
# Up to so many rows or columns, all singular values are computed instead.
_WHOLE = 128
# Numbers that the vectors of a block may be, and the fewest and most vectors.
_NUMBERS, _FEWEST, _MOST = 2**26, 32, 768
# Copies of them while they are made orthogonal, and copies of inputs and outputs while products are formed.
_COPIES, _IN_PRODUCTS = 3, 100


def derivative_footprint(derivative: Derivative, cut: Cut) -> Footprint:
    """Those of the vectors of one block, and of what the function leaves for its derivatives."""
    inputs, outputs = derivative.inputs, derivative.outputs
    dimensions = [min(inputs * i, outputs * (cut.length - i)) for i in cut.positions]
    held = max((_most_products(dimension) * dimension for dimension in dimensions), default=0)
    return Footprint(DOUBLE * (_COPIES * held + _IN_PRODUCTS * cut.length * (inputs + outputs)))


def _most_products(dimension: int) -> int:
    """How many products of a block are taken, and so many vectors held, at most."""
    return min(dimension, max(_FEWEST, min(_MOST, _NUMBERS // dimension)))


class DerivativeBlocks(EstimatedBlocks):
    """The blocks of a derivative."""

    def __init__(self, operator: Derivative, cut: Cut) -> None:
        super().__init__(operator, cut)
        self._derivative = operator

    def _estimated(self) -> list[list[Estimated]]:
        derivative, states = self._derivative, self._derivative.state_size()
        return [
            [self._block(derivative.jacobian(entry, i, i), i, int(states[i])) for i in self._positions]
            for entry in range(derivative.batch_shape.numel())
        ]

    def _block(self, jacobian: Jacobian, seed: int, states: int) -> Estimated:
        """What is known of one H_i, which has at most the rank of the state."""
        dimension = jacobian.dimension
        probes = dimension if dimension <= _WHOLE else 8
        estimate = EntropyEstimate(dimension, _ACCURACY, _most_products(dimension), probes, seed)
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
