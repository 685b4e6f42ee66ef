"""Recurrences with few states for operators: read `reduction`, `convolutions` and `reduce`."""

from statesize.reduction.reduce import VaryingReduction, reduce
from statesize.reduction.reduction import Reduction

__all__ = [
    "Reduction",
    "VaryingReduction",
    "reduce",
]
__dir__ = __all__.copy
