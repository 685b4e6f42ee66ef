"""The truncation test: every mixer carries k numbers past a cut. Read blocks, ranks, cutting, truncate, result."""

from statesize.truncation.page import with_truncation
from statesize.truncation.result import TruncationResult
from statesize.truncation.truncate import truncate

__all__ = ["TruncationResult", "truncate", "with_truncation"]
