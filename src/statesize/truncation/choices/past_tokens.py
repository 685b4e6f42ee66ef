"""Whole tokens that queries of the past read most: heavy hitters (Zhang et al. 2023, arXiv 2306.14048), asked again."""

from __future__ import annotations

from torch import Tensor

from statesize.truncation.blocks import Past
from statesize.truncation.choices.choice import Basis, Rule


class PastTokens(Basis):
    """The inputs that queries before the cut read most of, each moved behind it where that can be."""

    of_states = False

    def vectors(self, past: Past, ranks: Tensor) -> Tensor:
        """See `Basis`."""
        read = past.moments.diagonal(dim1=-2, dim2=-1)
        return read.masked_fill(~past.readable, -1.0).argsort(-1, descending=True)[..., None]


RULES = (Rule("past tokens", "whole tokens", PastTokens(), (1.0,)),)
