"""What changes if less is kept past a cut? Read run, choices, cutting, behind, truncate, cache, result."""

from statesize.truncation.memory_size import CausalSize, TruncationResult
from statesize.truncation.prices import CachePrices
from statesize.truncation.result import CutDocument, CutRun, Row

__all__ = ["CachePrices", "CausalSize", "CutDocument", "CutRun", "Row", "TruncationResult"]
