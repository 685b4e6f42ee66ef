"""SnapKV: Li et al. 2024, arXiv 2404.14469, with the mean over the heads of a cache, as in kvpress."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from statesize.truncation.choices.choice import TokenChoice
from statesize.truncation.past import HeldAttention

WINDOW, KERNEL = 64, 5
"""Last queries that are read, and the tokens over which their attention is smoothed."""


class SnapKV(TokenChoice):
    """Attention of the last queries, smoothed over tokens."""

    name = "snapkv"

    def scores(self, held: HeldAttention) -> Tensor:
        """See `TokenChoice`."""
        window = min(WINDOW, held.cut // 2)
        paid = held.past_rows(held.cut - window)[..., :-window].mean(-2)
        scores = functional.avg_pool1d(paid, KERNEL, 1, KERNEL // 2).mean(1)
        return functional.pad(scores, (0, window), value=float(scores.max()))
