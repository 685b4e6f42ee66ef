"""The truncation test: every mixer carries k numbers past a cut. Read blocks, ranks, cutting, truncate, result."""

from statesize.truncation.result import TruncationResult
from statesize.truncation.truncate import truncate

__all__ = ["TruncationResult", "truncate"]
