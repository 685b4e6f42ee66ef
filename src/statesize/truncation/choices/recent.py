"""The first and the latest tokens of a cache: StreamingLLM, Xiao et al. 2024, arXiv 2309.17453, section 3."""

from __future__ import annotations

import torch
from torch import Tensor

from statesize.truncation.behind import HeldAttention
from statesize.truncation.choices.choice import Eviction


class RecentTokens(Eviction):
    """A window of the latest tokens, behind the first ones, on which attention falls where it has nothing to read.

    Tokens keep their positions, as by every choice here; the paper numbers them anew in the cache.
    """

    def scores(self, held: HeldAttention) -> Tensor:
        """See `Eviction`."""
        return torch.arange(held.cut, dtype=torch.float32, device=held.key.device).repeat(len(held.key), 1)
