"""What choices choose from: units of a mixer before a cut, and what a layer of attention holds there."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from statesize.adapters.kernels.rotation import Rotation
from statesize.operators import Operator, SoftmaxAttention
from statesize.truncation.blocks import PastBlock, gram, past_block, readable

# How far behind the cut queries of the past are asked again.
_ASKED = (0, 4, 16, 64)


@dataclass(frozen=True, eq=False)
class Past:
    """Some units at a cut."""

    operator: Operator  # T
    cut: int  # position i
    rotation: Rotation | None = None  # of the queries, which may be none; None where what moves them is not known
    behind: Tensor | None = None  # H_i = T[i:, :i] as one run has it, if that is not of the operator

    def readers(self, ranks: Tensor) -> int:
        """How many consecutive units read one stored input and share a basis, of which these are the ranks."""
        return self.operator.batch_shape[-1] // ranks.shape[-1] if ranks.ndim else 1

    def block(self, readers: int = 1) -> PastBlock:
        """H_i of each unit, or of all that share a basis, one below the other."""
        if self.behind is None and readers == 1:
            return PastBlock.of(self.operator, self.cut)
        rows = past_block(self.operator, self.cut) if self.behind is None else self.behind
        return PastBlock(rows.reshape(*rows.shape[:-3], -1, readers * rows.shape[-2], rows.shape[-1]))

    @cached_property
    def readable(self) -> Tensor:
        """Which inputs some row behind the cut may read, (i,) bool."""
        return readable(self.operator, self.cut)

    @cached_property
    def asked(self) -> Tensor | None:
        """Σ rᵀ r of what the queries before the cut read there, once each is moved behind it; None without queries."""
        if not isinstance(self.operator, SoftmaxAttention) or self.rotation is None:
            return None
        attention = self.operator
        age = torch.arange(self.cut, 0, -1, device=attention.device)
        query = attention.query[..., : self.cut, :]
        moved = (self.rotation.moved(query, age + behind) for behind in _ASKED)
        read = (attention.attend(one, self.cut + behind, self.cut) for one, behind in zip(moved, _ASKED, strict=True))
        return sum(map(gram, read), torch.zeros(()))

    @property
    def rows(self) -> Tensor:
        """T of the positions before the cut, (..., i, i) float64."""
        return self.operator.columns(0, self.cut).double()[..., : self.cut, :]


@dataclass(frozen=True, eq=False)
class HeldAttention:
    """Attention of one layer over a text of L tokens, whose K caches are each read by g heads."""

    name: str  # of the module
    cut: int  # position i; what stands before it is held
    query: Tensor  # (K, g, L, d), as they meet the keys
    key: Tensor  # (K, L, d)
    value: Tensor  # (K, L, P)
    text: int  # its number, of those that were read together
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
