"""Attention by queries and keys alone: T is made in tiles where an engine asks for them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from statesize.adapters.faithfulness import BOUNDS, relative_difference
from statesize.adapters.observation import Units, chosen
from statesize.operators import SoftmaxAttention

# Rows of T by which an output of all heads is compared with what queries and keys make.
_ROWS = 64
# What is added to scores that must not count is at most this.
_UNSEEN = torch.finfo(torch.float16).min / 2


@dataclass(frozen=True, eq=False)
class PlainAttention:
    """T[i, j] = softmax_j(scale · q_iᵀ k_j) over the keys of a window."""

    query: Tensor  # (S, H, L, d)
    key: Tensor  # (S, K, L, d), each for H / K consecutive heads
    scale: float
    window: int | None

    def operator(self, units: Units) -> SoftmaxAttention:
        """T of chosen heads, batch shape (S, chosen heads)."""
        count = self.query.shape[1]
        heads = chosen(units, count, self.query.device)
        key = self.key[:, heads // (count // self.key.shape[1])]
        return SoftmaxAttention(self.query[:, heads], key, self.scale, self.window)

    def explains(self, values: Tensor, mixed: Tensor) -> bool:
        """Whether some rows of T u are those of y (S, H, L, P), in all heads; u (S, K, L, P)."""
        if not bool(torch.isfinite(self.query).all() and torch.isfinite(self.key).all()):
            return False
        length, groups = self.query.shape[2], values.shape[1]
        rows = torch.linspace(0, length - 1, min(length, _ROWS)).long().to(self.query.device)
        weights = self.operator(slice(None)).rows(rows)
        grouped = weights.reshape(len(weights), groups, -1, *weights.shape[-2:])
        applied = (grouped @ values[:, :, None].to(weights.dtype)).flatten(1, 2)
        return relative_difference(applied, mixed[:, :, rows]) <= BOUNDS[mixed.dtype]


def is_band(mask: object, length: int, window: int | None) -> bool:
    """Whether a mask of scores (…, L, L) lets every query see the keys of the window up to itself, and does no more."""
    if mask is None:
        return True
    if not isinstance(mask, Tensor) or mask.ndim != 4 or mask.shape[-2:] != (length, length):
        return False
    seen = torch.ones(length, length, dtype=torch.bool, device=mask.device).tril()
    seen = seen if window is None else seen.triu(1 - window)
    if mask.dtype == torch.bool:
        return bool((mask == seen).all())
    return bool(((mask == 0) == seen).all()) and not bool((mask[~seen.expand_as(mask)] > _UNSEEN).any())
