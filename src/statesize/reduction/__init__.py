"""Smaller recurrences and models: operators with few states, and trained models whose states are cut.

Read `reduction`, `convolutions` and `reduce` for operators; `bases`, `reducible`, `hub` and `compress` for models.
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
