"""Recurrences with few states for operators, and what a cache costs."""

from statesize.reduction.reduce import Reduction, reduce

__all__ = ["Reduction", "reduce"]
__dir__ = __all__.copy
