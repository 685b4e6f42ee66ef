"""Attention by queries and keys alone: T is made in tiles where an engine asks for them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from statesize.adapters.faithfulness import BOUNDS, ROWS, relative_difference
from statesize.adapters.observation import Units, chosen
from statesize.operators import SoftmaxAttention

# Rows of T by which an output of all heads is compared with what queries and keys make.
_ROWS = 64
# What is added to scores that must not count is at most this.
_UNSEEN = torch.finfo(torch.float16).min / 2


@dataclass(frozen=True, eq=False)
class PlainAttention:
    """T[i, j] = softmax_j(scale · q_iᵀ k_j) over the keys of a window, with what `SoftmaxAttention` knows beside it."""

    query: Tensor  # (S, H, L, d)
    key: Tensor  # (S, K, L, d), each for H / K consecutive heads
    scale: float
    window: int | None
    key_bias: Tensor | None = None  # (S or 1, H or 1, L)
    sink: Tensor | None = None  # (H,)
    soft_cap: float | None = None

    def operator(self, units: Units) -> SoftmaxAttention:
        """T of chosen heads, batch shape (S, chosen heads)."""
        count = self.query.shape[1]
        heads = chosen(units, count, self.query.device)
        key = self.key[:, heads // (count // self.key.shape[1])]
        bias, sink = self.key_bias, self.sink
        return SoftmaxAttention(
            self.query[:, heads],
            key,
            self.scale,
            self.window,
            key_bias=None if bias is None else bias.expand(-1, count, -1)[:, heads],
            sink=None if sink is None else sink[None, heads],
            soft_cap=self.soft_cap,
        )

    def explains(self, values: Tensor, mixed: Tensor) -> bool:
        """Whether some rows of T u are those of y (S, H, L, P), in all heads; u (S, K, L, P)."""
        parts = (self.query, self.key, self.key_bias, self.sink)
        if not all(bool(torch.isfinite(part).all()) for part in parts if part is not None):
            return False
        if self.key_bias is not None:
            masks = bool((self.key_bias.abs() > -_UNSEEN).any())
            return not masks and self._explains_each_head(values, mixed)
        length, groups = self.query.shape[2], values.shape[1]
        rows = torch.linspace(0, length - 1, min(length, _ROWS)).long().to(self.query.device)
        weights = self.operator(slice(None)).rows(rows)
        grouped = weights.reshape(len(weights), groups, -1, *weights.shape[-2:])
        applied = (grouped @ values[:, :, None].to(weights.dtype)).flatten(1, 2)
        return relative_difference(applied, mixed[:, :, rows]) <= BOUNDS[mixed.dtype]

    def _explains_each_head(self, values: Tensor, mixed: Tensor) -> bool:
        """The same by the rows and in the precision of the check of faithfulness, so that this refuses no mixer."""
        # A model rounds a bias that grows with the length as it adds it to the scores; T is measured without that.
        heads, length = self.query.shape[1:3]
        rows = torch.linspace(0, length - 1, min(length, ROWS)).long().to(self.query.device)
        values = values.repeat_interleave(heads // values.shape[1], 1)
        return all(
            relative_difference(
                self.operator(unit).to(torch.float64).rows(rows) @ values[:, unit].double(), mixed[:, unit][:, :, rows]
            )
            <= BOUNDS[mixed.dtype]
            for unit in (slice(head, head + 1) for head in range(heads))
        )


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


def relative_to_last(rows: Tensor) -> Tensor:
    """Scores (…, L) less that of the last key, as softmax does not see what a row has in common."""
    return rows - rows[..., -1:]
