"""Smaller recurrences and models: what a layer's memory needs, and what is left of a model with less.

Read `reduce` and `reduction` for operators; `gramians`, `bases` and `compress` for models.
"""

from statesize.reduction.compress import Compression, compress
from statesize.reduction.recommendation import Recommendation, recommend_state_size
from statesize.reduction.reduce import VaryingReduction, reduce
from statesize.reduction.reduction import Reduction

__all__ = [
    "Compression",
    "Recommendation",
    "Reduction",
    "VaryingReduction",
    "compress",
    "recommend_state_size",
    "reduce",
]
