"""Whole tokens that queries of the past read most: heavy hitters (Zhang et al. 2023, arXiv 2306.14048), asked again."""

from __future__ import annotations

from torch import Tensor

from statesize.truncation.blocks import Past
from statesize.truncation.choices.choice import Basis, Rule

# Rows before the cut by which tokens are chosen, where queries cannot be moved.
_WINDOW = 16


class PastTokens(Basis):
    """The inputs that queries before the cut read most of, each moved behind it; or else the last rows before it."""

    of_states = False

    def vectors(self, past: Past, ranks: Tensor) -> Tensor:
        """See `Basis`."""
        if past.asked is not None:
            read = past.asked.diagonal(dim1=-2, dim2=-1)
        else:
            read = past.rows[..., -_WINDOW:, :].abs().sum(-2)
        return read.masked_fill(~past.readable, -1.0).argsort(-1, descending=True)[..., None]


RULES = (Rule("past tokens", "whole tokens", PastTokens(), (1.0,)),)
