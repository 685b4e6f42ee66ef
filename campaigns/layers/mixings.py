"""Mixings of positions in several spellings, each with its T by a plain loop."""

from __future__ import annotations

from itertools import product
from random import Random
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Mixing(nn.Module):
    """Values (S, L, C) are mixed with weights made of a source (S, L, W); channel c of the answer is of `reads[c]`."""

    def __init__(self, reads: np.ndarray) -> None:
        super().__init__()
        self.reads = reads

    def definition(self, source: Tensor) -> Tensor:
        """T of each channel, (W, L, L), of one text's source (L, W) in float64; 0 where there is none."""
        return source.new_zeros(len(self.reads), len(source), len(source))


def split(part: Tensor, heads: int) -> Tensor:
    """By heads: (S, L, C) as (S, H, L, C / H)."""
    return part.reshape(*part.shape[:-1], heads, -1).transpose(1, 2)


class Attention(Mixing):
    """Weights of queries and keys, over all, a window, a block, or every n-th position."""

    def __init__(self, chance: Random, width: int, length: int) -> None:
        super().__init__(np.arange(width))
        self.heads, self.reach = chance.choice((1, 2, 4)), chance.randint(2, 5)
        self.groups = chance.choice([count for count in (1, 2, 4) if self.heads % count == 0])
        self.size, self.rule = width // self.heads, chance.choice(("all", "all", "window", "block", "strided"))
        self.weights = chance.choice(("softmax", "softmax", "softmax", "sigmoid", "squared", "divided"))
        self.bias, self.kept = chance.choice(("", "", "slope", "table")), chance.choice((0, 0, 0, 3))
        spellings = ["added", "filled", "where", "einsum"]
        if self.weights == "softmax" and not self.kept:
            special = {"all": ["causal"] * 2, "window": ["where"] * 4, "block": ["where"] * 2, "strided": []}
            spellings += ["fused"] + ["where", *special[self.rule]] * (not self.bias)
        self.spelling = chance.choice(spellings)
        self.query, self.key = nn.Linear(width, width), nn.Linear(width, self.size * self.groups)
        self.table = nn.Parameter(torch.randn(self.heads, length))
        self.reads = self.reads // self.size // (self.heads // self.groups) * self.size + self.reads % self.size

    def sees(self, i: Any, j: Any) -> Any:
        """Whether position i reads position j, of numbers or of tensors."""
        rules = {"window": i - j < self.reach, "block": i // self.reach == j // self.reach, "all": True}
        return (j <= i) & (rules | {"strided": (i - j) % self.reach == 0})[self.rule]

    def forward(self, source: Tensor, values: Tensor) -> Tensor:
        query, key, values = split(self.query(source), self.heads) * 2, self.key(source), values
        key, values = (split(x, self.groups).repeat_interleave(self.heads // self.groups, 1) for x in (key, values))
        return self._mixed(query, key, values).transpose(1, 2).flatten(2)

    def _mixed(self, query: Tensor, key: Tensor, values: Tensor) -> Tensor:
        place = torch.arange(query.shape[2])
        seen, lag = self.sees(place[:, None], place), place[:, None] - place
        bias = query.new_zeros(self.heads, 1, 1) if self.bias != "table" else self.table[:, lag.clamp(min=0)]
        bias = bias - lag * 0.25 if self.bias == "slope" else bias
        if self.spelling == "causal":
            return F.scaled_dot_product_attention(query, key, values, scale=1.0, is_causal=True)
        if self.spelling == "fused":
            mask = bias.masked_fill(~seen, -torch.inf) if self.bias else seen
            return F.scaled_dot_product_attention(query, key, values, scale=1.0, attn_mask=mask)
        scores = torch.einsum("bhid,bhjd->bhij", query, key) if self.spelling == "einsum" else query @ key.mT
        if self.spelling == "added":
            scores = scores + (bias + torch.zeros(seen.shape).masked_fill(~seen, -torch.inf))
        elif self.spelling == "where":
            scores = torch.where(seen, scores + bias, torch.finfo(scores.dtype).min)
        else:
            scores = (scores + bias).masked_fill(~seen, -torch.inf)
        if self.kept:
            least = scores.topk(min(self.kept, len(place)), -1).values[..., -1:]
            scores = scores.masked_fill(scores < least, -torch.inf)
        if self.weights == "divided":
            weights = (scores - scores.amax(-1, keepdim=True)).exp()
            return (weights @ values) / weights.sum(-1, keepdim=True)
        weights = {"sigmoid": scores.sigmoid, "squared": scores.relu().square}.get(self.weights)
        weights = weights() if weights else scores.softmax(-1)
        return weights @ values

    def definition(self, source: Tensor) -> Tensor:
        query, key = self.query(source), self.key(source)
        T = query.new_zeros(self.heads, len(source), len(source))
        for head, i in product(range(self.heads), range(len(source))):
            own = slice(head * self.size, (head + 1) * self.size)
            seen = torch.tensor([j for j in range(i + 1) if self.sees(i, j)])
            bias = {"": 0, "slope": (seen - i) / 4, "table": self.table[head, i - seen]}[self.bias]
            scores = 2 * key[seen][:, self.reads[own]] @ query[i, own] + bias
            kept = scores.argsort()[-self.kept :]
            made = {"sigmoid": scores.sigmoid(), "squared": scores.relu() ** 2}
            T[head, i, seen[kept]] = made.get(self.weights, scores.exp() / scores[kept].exp().sum())[kept]
        return T.repeat_interleave(self.size, 0)


class Memory(Mixing):
    """A matrix of keys by values in which gates and the delta rule let things fade."""

    def __init__(self, chance: Random, width: int, length: int) -> None:
        super().__init__(np.arange(width))
        self.heads, self.gate = chance.choice((1, 2)), chance.choice(("none", "fixed", "head", "key"))
        self.delta, self.strong = chance.random() < 0.3, chance.random() < 0.3
        self.normalised = self.gate == "none" and not self.delta and not self.strong and chance.random() < 0.5
        spellings = ["loop", "loop"] + ["cumsum"] * (self.gate == "none" and not self.delta)
        self.spelling = chance.choice(spellings + ["product"] * 2 * (self.gate != "key" and not self.delta))
        self.query, self.key = nn.Linear(width, width), nn.Linear(width, width)
        self.fade, self.strength = nn.Linear(width, width if self.gate == "key" else self.heads), nn.Linear(width, 2)

    def _parts(self, source: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        query, key = split(self.query(source), self.heads), split(self.key(source), self.heads)
        query, key = (F.elu(query) + 1, F.elu(key) + 1) if self.normalised else (query, F.normalize(key, dim=-1))
        fade = split((self.fade(source) + 2).sigmoid(), self.heads)
        fade = {"none": torch.ones_like(fade), "fixed": torch.full_like(fade, 0.9)}.get(self.gate, fade)
        strength = split(self.strength(source)[..., : self.heads].sigmoid(), self.heads)
        return query, key, fade, strength if self.strong else torch.ones_like(strength)

    def forward(self, source: Tensor, values: Tensor) -> Tensor:
        (query, key, fade, strength), values = self._parts(source), split(values, self.heads)
        if self.spelling == "product":
            sums = fade[..., 0].log().cumsum(-1)
            mixed = (query @ key.mT * (sums[..., None] - sums[..., None, :]).exp() * strength.mT).tril() @ values
        elif self.spelling == "cumsum":
            states = torch.einsum("bhlk,bhlv->bhlkv", strength * key, values).cumsum(2)
            mixed = torch.einsum("bhlk,bhlkv->bhlv", query, states)
        else:
            state, rows = values.new_zeros(*values.shape[:2], key.shape[-1], values.shape[-1]), list[Tensor]()
            for t in range(values.shape[2]):
                state = fade[:, :, t, :, None] * state
                new = values[:, :, t] - (key[:, :, t, None] @ state)[:, :, 0] if self.delta else values[:, :, t]
                state += torch.einsum("bhk,bhv->bhkv", (strength * key)[:, :, t], new)
                rows.append((query[:, :, t, None] @ state)[:, :, 0])
            mixed = torch.stack(rows, 2)
        if self.normalised:
            mixed = mixed / (query * key.cumsum(2)).sum(-1, keepdim=True)
        return mixed.transpose(1, 2).flatten(2)

    def definition(self, source: Tensor) -> Tensor:
        query, key, fade, strength = (part[0] for part in self._parts(source[None]))
        T = query.new_zeros(self.heads, len(source), len(source))
        for head in range(self.heads):
            # What a unit at each position leaves in the state, (K, L).
            state, total = T.new_zeros(key.shape[-1], len(source)), T.new_zeros(key.shape[-1])
            for t, (q, k) in enumerate(zip(query[head], key[head], strict=True)):
                state, total = state * fade[head, t][:, None], total + k
                new = torch.eye(len(source), dtype=T.dtype)[t] - (k @ state if self.delta else 0)
                state = state + strength[head, t] * torch.outer(k, new)
                T[head, t] = q @ state / (q @ total if self.normalised else 1)
        return T.repeat_interleave(len(self.reads) // self.heads, 0)


class Scan(Mixing):
    """Single channels that fade, with a write gate, or with several states that tokens write to and read from."""

    def __init__(self, chance: Random, width: int, length: int) -> None:
        super().__init__(np.arange(width))
        self.gated, self.states = chance.random() < 0.6, chance.choice((1, 1, 3))
        self.write = chance.choice(("", "complement", "root"))
        self.spelling = chance.choice(("list", "buffer", "matrix") + ("cumsum", "cumsum") * (self.states == 1))
        self.fade, self.inward, self.outward = (nn.Linear(width, count) for count in (width, self.states, self.states))
        self.own = nn.Parameter(torch.randn(width))

    def _gates(self, source: Tensor) -> tuple[Tensor, Tensor]:
        own = self.own.expand(*source.shape[:-1], -1)
        fade = torch.sigmoid((self.fade(source) if self.gated else own) + 1)
        return fade, {"": torch.ones_like(fade), "complement": 1 - fade, "root": (1 - fade**2).sqrt()}[self.write]

    def forward(self, source: Tensor, values: Tensor) -> Tensor:
        fade, gate = self._gates(source)
        values = values * gate
        if self.spelling == "cumsum":
            passed = fade.cumprod(1)
            return passed * (values / passed).cumsum(1)
        fade, values, outward = fade[..., None] ** torch.arange(1, 1 + self.states), values[..., None], torch.ones(1)
        if self.states > 1:
            values, outward = values * self.inward(source)[:, :, None], self.outward(source)[:, :, None]
        if self.spelling == "matrix":
            sums = fade.log().cumsum(1)
            passed = (sums[:, :, None] - sums[:, None]).exp().permute(0, 3, 4, 1, 2).tril()
            return (torch.einsum("bcnij,bjcn->bicn", passed, values) * outward).sum(-1)
        state, rows, buffer = torch.zeros_like(values[:, 0]), list[Tensor](), torch.zeros_like(fade[..., 0])
        outward = outward.expand_as(fade)
        for t in range(values.shape[1]):
            state = fade[:, t] * state + values[:, t]
            rows.append((state * outward[:, t]).sum(-1))
            buffer[:, t, :] = rows[-1]
        return buffer if self.spelling == "buffer" else torch.stack(rows, dim=1)

    def definition(self, source: Tensor) -> Tensor:
        (fade, gate), powers = self._gates(source), torch.arange(1, 1 + self.states)
        inward, outward, T = self.inward(source), self.outward(source), super().definition(source)
        for j in range(len(fade)):
            state = gate[j][:, None] * (inward[j] if self.states > 1 else 1)
            for i in range(j, len(fade)):
                state = state * fade[i][:, None] ** powers if i > j else state
                T[:, i, j] = (state * (outward[i] if self.states > 1 else 1)).sum(1)
        return T


class Taps(Mixing):
    """A convolution of each channel, short or as long as the text."""

    def __init__(self, chance: Random, width: int, length: int, spelling: str = "", count: int = 0) -> None:
        super().__init__(np.arange(width))
        self.count = count or chance.choice((2, 3, 4, length))
        self.apart = chance.choice((1, 2)) if 2 < self.count < length else 1
        self.spelling = spelling or chance.choice("module padded toeplitz rolled rolled fft toeplitz".split())
        self.back, bias = (self.count - 1) * self.apart, chance.random() < 0.5
        self.taps = nn.Conv1d(width, width, self.count, padding=self.back, groups=width, dilation=self.apart, bias=bias)

    def forward(self, source: Tensor, values: Tensor) -> Tensor:
        length, weight = values.shape[1], self.taps.weight[:, 0]
        if self.spelling == "module":
            return self.taps(values.mT)[..., :length].mT
        if self.spelling == "padded":
            return F.conv1d(F.pad(values.mT, (self.back, 0)), self.taps.weight, None, 1, 0, self.apart, len(weight)).mT
        lags = self.back - torch.arange(self.count) * self.apart
        lags, weight, place = lags[lags < length], weight[:, lags < length], torch.arange(length)[:, None]
        if self.spelling == "rolled":
            return torch.stack([values.roll(int(n), 1) * (place >= n) for n in lags], -1).mul(weight).sum(-1)
        response = weight.new_zeros(len(weight), length).index_add(1, lags, weight)
        if self.spelling == "fft":
            fft, n = cast("Any", torch.fft), 2 * length
            return fft.irfft(fft.rfft(values, n, 1) * fft.rfft(response, n).mT, n, 1)[:, :length]
        return torch.einsum("cij,bjc->bic", response[:, (place - place.mT).clamp(min=0)].tril(), values)

    def definition(self, source: Tensor) -> Tensor:
        T = super().definition(source)
        for number, i in product(range(self.count), range(len(source))):
            if i + number * self.apart >= self.back:
                T[:, i, i + number * self.apart - self.back] = self.taps.weight[:, 0, number]
        return T


class Mean(Mixing):
    """The mean of all so far."""

    def __init__(self, chance: Random, width: int, length: int) -> None:
        super().__init__(np.arange(width))
        self.spelling = chance.choice(("cumsum", "matrix", "matrix"))

    def forward(self, source: Tensor, values: Tensor) -> Tensor:
        count = torch.arange(1, values.shape[1] + 1)[:, None]
        row = values.new_ones(len(count), len(count)).tril() / count
        return values.cumsum(1) / count if self.spelling == "cumsum" else row @ values

    def definition(self, source: Tensor) -> Tensor:
        T = super().definition(source) + 1
        return T.tril() / torch.arange(1, len(source) + 1)[:, None]


class NotLinear(Mixing):
    """Recurrences that are linear in no value, so that they have no T."""

    def __init__(self, chance: Random, width: int, length: int) -> None:
        super().__init__(np.arange(width))
        self.spelling = chance.choice(("tanh", "largest", "gru", "tanh"))
        self.again, self.gru = nn.Linear(width, width), nn.GRU(width, width, batch_first=True)

    def forward(self, source: Tensor, values: Tensor) -> Tensor:
        if self.spelling != "tanh":
            return self.gru(values)[0] if self.spelling == "gru" else values.cummax(1).values
        states = [torch.zeros_like(values[:, 0])]
        for value in values.unbind(1):
            states.append((self.again(states[-1]) + value).tanh())
        return torch.stack(states[1:], 1)
