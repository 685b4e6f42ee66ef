"""The first and the last tokens: Xiao et al. 2024, "Attention sinks", arXiv 2309.17453, section 3."""

from __future__ import annotations

import torch
from torch import Tensor

from statesize.truncation.behind import HeldAttention
from statesize.truncation.choices.choice import TokenChoice


class RecentTokens(TokenChoice):
    """The latest tokens."""

    name = "recent"

    def scores(self, held: HeldAttention) -> Tensor:
        """See `TokenChoice`."""
        return torch.arange(held.cut, dtype=torch.float32, device=held.key.device).repeat(len(held.key), 1)
