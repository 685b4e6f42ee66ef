"""The truncation test: every mixer carries k numbers past a cut.

Read blocks, causal, past, cutting, truncate, result.
"""

from statesize.truncation.page import chart, with_truncation
from statesize.truncation.result import CausalSize, TruncationResult
from statesize.truncation.truncate import truncate

__all__ = ["CausalSize", "TruncationResult", "chart", "truncate", "with_truncation"]
