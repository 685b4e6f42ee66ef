"""Smaller recurrences and models: operators with few states, and trained models whose states are cut.

Read `reduction`, `convolutions` and `reduce` for operators; `bases`, `reducible`, `hub` and `compress` for models.
"""

from statesize.reduction.compress import Compression, compress
from statesize.reduction.reduce import VaryingReduction, reduce
from statesize.reduction.reduction import Reduction

__all__ = [
    "Compression",
    "Reduction",
    "VaryingReduction",
    "compress",
    "reduce",
]
__dir__ = __all__.copy
