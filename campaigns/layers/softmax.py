"""Softmax attention of one's own: rules of masks, sinks, biases, scales and grouped queries, in several spellings."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from random import Random

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

SPELLINGS = ("masked_fill", "where", "added", "fused")


@dataclass(frozen=True)
class Rules:
    """What each head sees, and what is added to its scores.

    Attributes:
        windows: Of each head, in positions with the row's own; None sees all.
        first_seen: The first token is seen from outside of the windows too.
        only: Rows of a head, each with the one column that it sees.
        unseen: Columns of a head that no later row sees.
        every_other: Rows of a head that see every other column, counted from their own.
        later: A row and the later column that it sees, in head 0: not causal.
        slopes: Of each head, by which scores fall with the distance.
        key_bias: Scores have a term of each column, which follows from its token.
        sink: Where a learned score of each head stands beside those of the columns: "" (nowhere), "before", "behind".
        scale: Of the scores.
    """

    windows: tuple[int | None, ...]
    first_seen: bool = False
    only: dict[int, dict[int, int]] = field(default_factory=dict)
    unseen: dict[int, int] = field(default_factory=dict)
    every_other: dict[int, int] = field(default_factory=dict)
    later: tuple[int, int] | None = None
    slopes: tuple[float, ...] | None = None
    key_bias: bool = False
    sink: str = ""
    scale: float = 1.0

    def sees(self, head: int, i: int, j: int) -> bool:
        """Whether row i sees column j: the definition, one entry at a time."""
        if self.later == (i, j) and head == 0:
            return True
        if j > i:
            return False
        if i in self.only.get(head, {}):
            return j == self.only[head][i]
        window = self.windows[head]
        inside = window is None or i - j < window or (self.first_seen and j == 0)
        dropped = i != j and self.unseen.get(head) == j
        other = self.every_other.get(head) == i and (i - j) % 2 == 1
        return inside and not dropped and not other

    def hidden(self, length: int) -> Tensor:
        """The same for all entries, as a layer would make its mask, (H, L, L)."""
        heads = len(self.windows)
        hidden = torch.ones(heads, length, length).triu(1).bool()
        for head, window in enumerate(self.windows):
            if window is not None:
                hidden[head] |= torch.ones(length, length).tril(-window).bool()
            if self.first_seen:
                hidden[head, :, 0] = False
            if head in self.unseen:
                hidden[head, self.unseen[head] + 1 :, self.unseen[head]] = True
            if head in self.every_other:
                row = self.every_other[head]
                hidden[head, row, torch.arange(row - 1, -1, -2)] = True
            for row, column in self.only.get(head, {}).items():
                hidden[head, row] = True
                hidden[head, row, column] = False
        if self.later is not None:
            hidden[0, self.later[0], self.later[1]] = False
        return hidden


class OwnAttention(nn.Module):
    """Softmax attention with rules."""

    def __init__(self, width: int, key_heads: int, size: int, rules: Rules, spelling: str) -> None:
        super().__init__()
        self.heads, self.key_heads, self.size = len(rules.windows), key_heads, size
        self.rules, self.spelling = rules, spelling
        self.query, self.key = nn.Linear(width, self.heads * size), nn.Linear(width, key_heads * size)
        self.value, self.leave = nn.Linear(width, key_heads * size), nn.Linear(self.heads * size, width)
        self.key_bias = nn.Linear(width, self.heads) if rules.key_bias else None
        self.sinks = nn.Parameter(torch.randn(self.heads)) if rules.sink else None

    def _heads(self, part: Tensor, heads: int) -> Tensor:
        part = part.unflatten(-1, (heads, self.size)).transpose(1, 2)
        return part.repeat_interleave(self.heads // heads, 1) if heads < self.heads else part

    def forward(self, hidden: Tensor) -> Tensor:
        """Attention, (S, L, width) to (S, L, width)."""
        rules, length = self.rules, hidden.shape[1]
        query = self._heads(self.query(hidden), self.heads)
        key, value = (self._heads(part(hidden), self.key_heads) for part in (self.key, self.value))
        unseen = rules.hidden(length)
        added = hidden.new_zeros(1, self.heads, length, length)
        if rules.slopes is not None:
            position = torch.arange(length)
            slopes = torch.tensor(rules.slopes, dtype=hidden.dtype)[:, None, None]
            added = added - slopes * (position[:, None] - position).to(hidden.dtype)
        if self.key_bias is not None:
            added = added + self.key_bias(hidden).mT[:, :, None]
        if self.spelling == "fused":
            mask = added.masked_fill(unseen, -math.inf)
            mixed = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=rules.scale)
        else:
            scores = query @ key.mT * rules.scale + added
            if self.spelling == "masked_fill":
                scores = scores.masked_fill(unseen, -math.inf)
            elif self.spelling == "where":
                scores = torch.where(unseen, torch.finfo(scores.dtype).min, scores)
            else:
                scores = scores + torch.zeros_like(scores).masked_fill(unseen, -math.inf)
            mixed = self._maps(scores) @ value
        return self.leave(mixed.transpose(1, 2).flatten(2))

    def _maps(self, scores: Tensor) -> Tensor:
        if self.sinks is None:
            return scores.softmax(-1)
        column = self.sinks[None, :, None, None].expand(*scores.shape[:-1], 1)
        if self.rules.sink == "before":
            return torch.cat([column, scores], -1).softmax(-1)[..., 1:]
        return torch.cat([scores, column], -1).softmax(-1)[..., :-1]

    def definition(self, hidden: np.ndarray) -> np.ndarray:
        """T of each head, row by row, (H, L, L); how many channels share it is the head's size."""
        rules, length = self.rules, len(hidden)
        parts = {name: applied(part, hidden) for name, part in self.named_children() if name != "leave"}
        T = np.zeros((self.heads, length, length))
        for head in range(self.heads):
            shared = head // (self.heads // self.key_heads)
            query = parts["query"][:, head * self.size : (head + 1) * self.size]
            key = parts["key"][:, shared * self.size : (shared + 1) * self.size]
            for i in range(length):
                seen = [j for j in range(length) if rules.sees(head, i, j)]
                scores = [float(query[i] @ key[j]) * rules.scale for j in seen]
                if rules.slopes is not None:
                    scores = [score - rules.slopes[head] * (i - j) for score, j in zip(scores, seen, strict=True)]
                if rules.key_bias:
                    scores = [score + parts["key_bias"][j, head] for score, j in zip(scores, seen, strict=True)]
                sinks = [] if self.sinks is None else [float(self.sinks.detach()[head])]
                most = max(scores + sinks)
                weights = np.exp(np.array(scores + sinks) - most)
                T[head, i, seen] = (weights / weights.sum())[: len(seen)]
        return T


class Columns(OwnAttention):
    """Weights normalised over the rows of each column: each depends on later queries, though no later value is seen."""

    def _maps(self, scores: Tensor) -> Tensor:
        return scores.softmax(-2)


def applied(part: nn.Linear, hidden: np.ndarray) -> np.ndarray:
    """A projection in float64."""
    weight, bias = part.weight.detach().double().numpy(), part.bias.detach().double().numpy()
    return hidden @ weight.T + bias


def drawn_rules(chance: Random, heads: int, length: int, later: bool) -> Rules:
    """Rules of some heads."""

    def some(share: float) -> bool:
        return chance.random() < share

    def row() -> int:
        return chance.randrange(length // 3, length)

    windows: list[int | None] = [None] * heads
    if some(0.35):
        window = chance.randint(2, max(2, length // 2))
        windows = [window if some(0.5) else None for _ in windows] if some(0.4) else [window] * heads
    only: dict[int, dict[int, int]] = {}
    if some(0.35):
        rows = {row() for _ in range(chance.randint(1, 3))}
        only[chance.randrange(heads)] = {i: chance.choice((i, 0, chance.randint(0, i))) for i in rows}
    place = chance.randrange(length - 1)
    return Rules(
        windows=tuple(windows),
        first_seen=some(0.3),
        only=only,
        unseen={chance.randrange(heads): chance.randrange(length)} if some(0.2) else {},
        every_other={chance.randrange(heads): row()} if some(0.2) else {},
        later=(place, chance.randrange(place + 1, length)) if later else None,
        slopes=tuple(chance.choice((0.0, 0.125, chance.uniform(0, 1))) for _ in range(heads)) if some(0.3) else None,
        key_bias=some(0.25),
        sink=chance.choice(("before", "behind")) if some(0.25) else "",
        scale=chance.choice((1.0, 0.5, chance.uniform(0.05, 4))),
    )


def drawn_attention(chance: Random, width: int, length: int, later: bool = False) -> OwnAttention:
    """An attention layer; where `later`, one row of one head sees a later position."""
    heads = chance.choice((1, 2, 4))
    key_heads = chance.choice([count for count in (1, 2, 4) if heads % count == 0])
    rules = drawn_rules(chance, heads, length, later)
    spelling = chance.choice(SPELLINGS if not rules.sink else SPELLINGS[:-1])
    return OwnAttention(width, key_heads, chance.choice((2, 4)), rules, spelling)


def drawn_columns(chance: Random, width: int, length: int) -> Columns:
    """A layer that normalises the wrong way."""
    heads = chance.choice((1, 2))
    return Columns(width, heads, 4, Rules((None,) * heads), chance.choice(SPELLINGS[:-1]))
