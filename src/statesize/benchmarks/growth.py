"""How the cost of an engine grows with the length of the sequence."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from functools import partial
from typing import cast

from statesize.benchmarks.cases import (
    attention,
    gated,
    modal_convolution,
    selective,
    short_convolution,
    smooth_attention,
)
from statesize.benchmarks.timing import dense_seconds, midpoints, seconds
from statesize.measurement import measure
from statesize.operators import Operator
from statesize.spectra.engine import EngineName

_LENGTHS = (512, 1024, 2048, 4096, 8192, 16384)
_QUICK_LENGTHS = (64, 128, 256)
# The longest of the engines that hold T, and of the definition.
_LONGEST = {"dense": 2048, "position_tree": 2048, "tridiagonal": 2048}
_OPERATORS: dict[str, Callable[[int], Operator]] = {
    "dense": partial(attention, width=64),
    "square_root": partial(gated, states=32),
    "small_state": partial(selective, states=16, channels=16),
    "chunked": partial(gated, states=64),
    "streaming": partial(smooth_attention, width=64),
    "tridiagonal": partial(attention, width=64),
    "position_tree": partial(attention, width=64),
    "convolution": partial(modal_convolution, modes=32),
    "distinct_blocks": partial(short_convolution, taps=64),
}
_ROUNDS = 3
_LONG = 2.0  # seconds from which a call is not repeated


def exponents(quick: bool, on_engine: Callable[[str, float], object] = lambda engine, slope: None) -> dict[str, float]:
    """Slopes of ln seconds over ln L, for counts at one tolerance at all positions."""
    # Lengths are 512 … 16384; 2048 at most for engines that hold T. `dense` is timed at evenly spread positions and
    # scaled. `implicit` is for a few positions of long contexts.
    slopes: dict[str, float] = {}
    for engine, make in _OPERATORS.items():
        slopes[engine] = _exponent(engine, make, quick)
        on_engine(engine, slopes[engine])
    return slopes


def _exponent(engine: str, make: Callable[[int], Operator], quick: bool) -> float:
    lengths = [length for length in (_QUICK_LENGTHS if quick else _LENGTHS) if length <= _LONGEST.get(engine, length)]
    _seconds(engine, make(lengths[0]))
    points: list[tuple[float, float]] = []
    for length in lengths:
        operator = make(length)
        taken = [_seconds(engine, operator)]
        while not quick and len(taken) < _ROUNDS and taken[0] < _LONG:
            taken.append(_seconds(engine, operator))
        points.append((math.log(length), math.log(statistics.median(taken))))
    x, y = (list(column) for column in zip(*points, strict=True))
    return statistics.linear_regression(x, y).slope


def _seconds(engine: str, operator: Operator) -> float:
    if engine == "dense":
        return dense_seconds(operator.dense(), midpoints(operator.length, 8))
    return seconds(lambda: measure(operator, (1e-3,), (), outputs=("counts",), engine=cast("EngineName", engine)))
