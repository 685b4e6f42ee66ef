"""H2O: Zhang et al. 2023, arXiv 2306.14048, section 4, over the number of queries, as in kvpress."""

from __future__ import annotations

import torch
from torch import Tensor

from statesize.truncation.choices.choice import TokenChoice
from statesize.truncation.past import HeldAttention


class HeavyHitters(TokenChoice):
    """Mean attention that later queries paid."""

    name = "h2o"

    def scores(self, held: HeldAttention) -> Tensor:
        """See `TokenChoice`."""
        paid = held.past_rows().mean(1).sum(1)
        return paid / torch.arange(held.cut, 0, -1, device=paid.device)
