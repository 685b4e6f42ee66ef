"""What a layer of attention holds of a text, and a choice of the tokens that its caches keep."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from statesize.adapters.kernels.rotation import Rotation

SINKS, RECENT = 4, 16
"""First and last tokens before the cut that every choice of tokens keeps."""


@dataclass(frozen=True, eq=False)
class HeldAttention:
    """Attention of one layer over a text of L tokens, whose K caches are each read by g heads."""

    name: str  # of the module
    cut: int  # position i; what stands before it is held
    query: Tensor  # (K, g, L, d), as they meet the keys
    key: Tensor  # (K, L, d)
    value: Tensor  # (K, L, P)
    scale: float  # factor on the scores
    window: int | None = None  # positions that a query sees; None for all
    soft_cap: float | None = None  # bound on the scores; None for none
    sink: Tensor | None = None  # logit of a column that carries nothing, (K, g); None for none
    rotation: Rotation | None = None  # of the held positions, which may be none; None where it is not known

    @property
    def available(self) -> int:
        """Tokens that each cache holds at the cut, the last ones."""
        return self.cut if self.window is None else min(self.cut, self.window - 1)

    def rows(self, query: Tensor, key: Tensor, seen: Tensor | None = None) -> Tensor:
        """Rows of T, (R, K, g, n, m), of the last n positions of m keys."""
        # Of query (R, K, g, n, d) and key (R or 1, K, m, d); `seen` says which keys are there, (R, K, m) bool.
        count, keys = query.shape[-2], key.shape[-2]
        scores = (query.flatten(2, 3) @ key.mT).mul_(self.scale).reshape(*query.shape[:-1], keys)
        if self.soft_cap is not None:
            scores = (scores / self.soft_cap).tanh() * self.soft_cap
        lag = torch.arange(keys - count, keys, device=key.device)[:, None] - torch.arange(keys, device=key.device)
        hidden = (lag < 0) if self.window is None else (lag < 0) | (lag >= self.window)
        if seen is not None:
            hidden = hidden | ~seen[:, :, None, None]
        scores = scores.masked_fill_(hidden, -torch.inf)
        if self.sink is None:
            return scores.softmax(-1)
        total = torch.logaddexp(scores.logsumexp(-1), self.sink[..., None])
        return (scores - total[..., None]).exp_()

    def past_rows(self, first: int = 0) -> Tensor:
        """Rows of T before the cut from one on, (K, g, i − first, i)."""
        query, key = self.query[None, :, :, first : self.cut], self.key[None, :, : self.cut]
        return self.rows(query.float(), key.float())[0]


class Choice(ABC):
    """Which tokens before the cut the caches of a layer keep: those with the highest scores."""

    @abstractmethod
    def scores(self, held: HeldAttention) -> Tensor:
        """Scores of the tokens before the cut, (K, i) float32; those of the first and last tokens do not matter."""

    def order(self, held: HeldAttention) -> Tensor:
        """Positions before the cut in the order in which each cache keeps them, (K, n) of the n that it holds."""
        scores = self.scores(held)
        scores[:, :SINKS] = torch.inf
        scores[:, -RECENT:] = torch.inf
        hidden = held.cut - held.available
        return scores[:, hidden:].argsort(dim=-1, descending=True, stable=True) + hidden


def kept(order: Tensor, counts: Tensor, cut: int) -> Tensor:
    """Which of the positions before the cut stay, (..., K, i) bool: so many (..., K) first ones of orders (K, n)."""
    rank = torch.full((len(order), cut), cut, device=order.device)
    rank.scatter_(1, order, torch.arange(order.shape[1], device=order.device).expand_as(order))
    return rank < counts.to(order.device)[..., None]
