"""Linear attention, recurrences written as loops, causal convolutions, and layers that gather tokens."""

from __future__ import annotations

import math
from random import Random

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from campaigns.layers.softmax import applied


class LinearAttention(nn.Module):
    """Linear attention without a normaliser, with fixed decays of heads, as a product or as a loop."""

    def __init__(self, width: int, decays: tuple[float, ...], features: str, spelling: str) -> None:
        super().__init__()
        self.decays, self.features, self.spelling = decays, features, spelling
        self.query, self.key, self.value, self.leave = (nn.Linear(width, width) for _ in range(4))

    def _heads(self, part: Tensor) -> Tensor:
        return part.unflatten(-1, (len(self.decays), -1)).transpose(1, 2)

    def _feature(self, part: Tensor) -> Tensor:
        if self.features == "elu":
            return functional.elu(part) + 1
        return part.exp() if self.features == "exp" else part

    def forward(self, hidden: Tensor) -> Tensor:
        """Linear attention, (S, L, width) to (S, L, width)."""
        query, key = (self._feature(self._heads(part(hidden))) for part in (self.query, self.key))
        value, length = self._heads(self.value(hidden)), hidden.shape[1]
        decays = torch.tensor(self.decays, dtype=hidden.dtype)[:, None, None]
        if self.spelling == "loop":
            state, outputs = 0.0, []
            for t in range(length):
                state = decays * state + key[:, :, t, :, None] * value[:, :, t, None]
                outputs.append(query[:, :, t, None] @ state)
            mixed = torch.cat(outputs, 2)
        else:
            position = torch.arange(length)
            distance = (position[:, None] - position).clamp_min(0)
            maps = query @ key.mT * decays**distance
            later = torch.ones(length, length).triu(1).bool()
            mixed = (maps.tril() if self.spelling == "tril" else maps.masked_fill(later, 0)) @ value
        return self.leave(mixed.transpose(1, 2).flatten(2))

    def definition(self, hidden: np.ndarray) -> np.ndarray:
        """T of each head, (H, L, L)."""
        query, key = (applied(part, hidden) for part in (self.query, self.key))
        if self.features == "elu":
            query, key = (np.where(part > 0, part + 1, np.exp(part)) for part in (query, key))
        elif self.features == "exp":
            query, key = np.exp(query), np.exp(key)
        T = np.zeros((len(self.decays), len(hidden), len(hidden)))
        for head, decay in enumerate(self.decays):
            size = query.shape[1] // len(self.decays)
            own = slice(head * size, (head + 1) * size)
            for i in range(len(hidden)):
                for j in range(i + 1):
                    T[head, i, j] = decay ** (i - j) * (query[i, own] @ key[j, own])
        return T


class GatedMemory(nn.Module):
    """A memory that gates let fade, as a loop: one gate per head, one per key channel, or the delta rule."""

    def __init__(self, width: int, heads: int, gates: str) -> None:
        super().__init__()
        self.heads, self.gates = heads, gates
        self.query, self.key, self.value, self.leave = (nn.Linear(width, width) for _ in range(4))
        self.gate = nn.Linear(width, width if gates == "key" else heads)

    def forward(self, hidden: Tensor) -> Tensor:
        """The memory's answers, (S, L, width) to (S, L, width)."""
        query, key, value = (
            part(hidden).unflatten(-1, (self.heads, -1)) for part in (self.query, self.key, self.value)
        )
        gate = self.gate(hidden).sigmoid()
        memory = hidden.new_zeros(len(hidden), self.heads, key.shape[-1], value.shape[-1])
        outputs = []
        for t in range(hidden.shape[1]):
            stored = key[:, t, :, :, None]
            if self.gates == "key":
                memory = gate[:, t].unflatten(-1, (self.heads, -1))[..., None] * memory + stored * value[:, t, :, None]
            elif self.gates == "head":
                memory = gate[:, t, :, None, None] * memory + stored * value[:, t, :, None]
            else:
                stored = functional.normalize(stored, dim=-2)
                old = (stored * memory).sum(-2, keepdim=True)
                memory = memory + gate[:, t, :, None, None] * stored * (value[:, t, :, None] - old)
            outputs.append((query[:, t, :, None] @ memory).squeeze(-2))
        return self.leave(torch.stack(outputs, 1).flatten(2))

    def definition(self, hidden: np.ndarray) -> np.ndarray:
        """T of each head, (H, L, L): the state's answer to a unit of value at each position."""
        query, key, gate = (applied(part, hidden) for part in (self.query, self.key, self.gate))
        gate, size, length = 1 / (1 + np.exp(-gate)), query.shape[1] // self.heads, len(hidden)
        T = np.zeros((self.heads, length, length))
        for head in range(self.heads):
            own = slice(head * size, (head + 1) * size)
            states = np.zeros((size, length))
            for t in range(length):
                k, unit = key[t, own], np.eye(length)[t]
                if self.gates == "delta":
                    k, g = k / np.sqrt(k @ k), gate[t, head]
                    states = states - g * np.outer(k, k @ states) + g * np.outer(k, unit)
                else:
                    g = gate[t, own][:, None] if self.gates == "key" else gate[t, head]
                    states = g * states + np.outer(k, unit)
                T[head, t] = query[t, own] @ states
        return T


class ChannelRecurrence(nn.Module):
    """One number per channel, faded by a gate of the token or by one of its own, as a loop."""

    def __init__(self, width: int, gated: bool) -> None:
        super().__init__()
        self.value, self.leave = nn.Linear(width, width), nn.Linear(width, width)
        self.gate = nn.Linear(width, width) if gated else None
        self.decay = nn.Parameter(torch.rand(width))

    def forward(self, hidden: Tensor) -> Tensor:
        """The states, (S, L, width) to (S, L, width)."""
        value = self.value(hidden)
        gate = self.decay.expand_as(value) if self.gate is None else self.gate(hidden).sigmoid()
        state, outputs = torch.zeros_like(value[:, 0]), []
        for t in range(hidden.shape[1]):
            state = gate[:, t] * state + value[:, t]
            outputs.append(state)
        return self.leave(torch.stack(outputs, 1))

    def definition(self, hidden: np.ndarray) -> np.ndarray:
        """T of each channel, (width, L, L)."""
        decay, length = self.decay.detach().double().numpy(), len(hidden)
        gate = np.tile(decay, (length, 1)) if self.gate is None else 1 / (1 + np.exp(-applied(self.gate, hidden)))
        T = np.zeros((len(decay), length, length))
        for j in range(length):
            T[:, j:, j] = np.cumprod(np.concatenate([np.ones_like(gate[:1]), gate[j + 1 :]]), 0).T
        return T


class OwnConvolution(nn.Module):
    """A causal convolution of each channel."""

    def __init__(self, width: int, taps: int, apart: int, spelling: str) -> None:
        super().__init__()
        self.apart, self.spelling = apart, spelling
        self.value, self.leave = nn.Linear(width, width), nn.Linear(width, width)
        self.taps = nn.Parameter(torch.randn(width, 1, taps) / math.sqrt(taps))

    def forward(self, hidden: Tensor) -> Tensor:
        """The convolution, (S, L, width) to (S, L, width)."""
        value, length = self.value(hidden).mT, hidden.shape[1]
        back = (self.taps.shape[-1] - 1) * self.apart
        options = {"dilation": self.apart, "groups": len(self.taps)}
        if self.spelling == "padded":
            mixed = functional.conv1d(functional.pad(value, (back, 0)), self.taps, **options)
        elif self.spelling == "cut":
            mixed = functional.conv1d(value, self.taps, padding=back, **options)[..., :length]
        elif self.spelling == "fft":
            response = torch.zeros_like(value[0])
            lags = [lag for lag in range(0, back + 1, self.apart) if lag < length]
            response = response.index_add(1, torch.tensor(lags), self.taps[:, 0].flip(-1)[:, : len(lags)])
            spectrum = torch.fft.rfft(value, 2 * length) * torch.fft.rfft(response, 2 * length)
            mixed = torch.fft.irfft(spectrum, 2 * length)[..., :length]
        else:
            mixed = torch.zeros_like(value)
            for number in range(self.taps.shape[-1]):
                lag = back - number * self.apart
                mixed = mixed + self.taps[:, 0, number, None] * functional.pad(value, (lag, 0))[..., :length]
        return self.leave(mixed.mT)

    def definition(self, hidden: np.ndarray) -> np.ndarray:
        """T of each channel, (width, L, L)."""
        taps, length = self.taps.detach().double().numpy()[:, 0], len(hidden)
        T = np.zeros((len(taps), length, length))
        for number in range(taps.shape[1]):
            lag = (taps.shape[1] - 1 - number) * self.apart
            for i in range(lag, length):
                T[:, i, i - lag] = taps[:, number]
        return T


class Gathered(nn.Module):
    """The tokens of the highest scores attend to each other causally: which they are, later tokens decide."""

    def __init__(self, width: int, kept: int, ordered: str) -> None:
        super().__init__()
        self.kept, self.ordered = kept, ordered
        self.score, self.project, self.leave = nn.Linear(width, 1), nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, hidden: Tensor) -> Tensor:
        """The gathered tokens' attention, scattered back, (S, L, width) to (S, L, width)."""
        scores = self.score(hidden).squeeze(-1)
        if self.ordered == "topk":
            places = scores.topk(self.kept, -1).indices
        else:
            places = scores.argsort(-1, descending=True)[:, : self.kept]
        places = places.sort(-1).values[..., None].expand(-1, -1, hidden.shape[-1])
        query, key, value = self.project(hidden.gather(1, places)).chunk(3, -1)
        later = torch.ones(self.kept, self.kept).triu(1).bool()
        maps = (query @ key.mT / math.sqrt(query.shape[-1])).masked_fill(later, -math.inf).softmax(-1)
        return self.leave(torch.zeros_like(hidden).scatter(1, places, maps @ value))


class Chain(nn.Module):
    """Long convolutions of single channels one behind another, with gates before them, as in Hyena and H3."""

    def __init__(self, width: int, length: int, gates: tuple[str, ...], *, late: bool) -> None:
        super().__init__()
        # What the first mixing mixes is a product, of whose factors T acts on the one that is computed first.
        self.gates, self.late, self.order = gates, late, torch.randperm(len(gates) + 1).tolist()
        decays = torch.rand(len(gates), width) * 0.4 + 0.55
        self.kernels = nn.Parameter(decays[..., None] ** torch.arange(length))
        self.streams = nn.ModuleList(nn.Linear(width, width) for _ in range(len(gates) + 1))
        self.leave = nn.Linear(width, width)

    def _gate(self, number: int, hidden: Tensor) -> Tensor:
        gate = self.streams[number](hidden)
        return gate.sigmoid() if self.gates[number] == "sigmoid" else gate

    def _maps(self) -> Tensor:
        """The mixings, (mixings, channels, L, L)."""
        position = torch.arange(self.kernels.shape[-1])
        lag = (position[:, None] - position).clamp_min(0)
        return self.kernels[..., lag].tril()

    def forward(self, hidden: Tensor) -> Tensor:
        """The last mixing, (S, L, width) to (S, L, width)."""
        made = dict[int, Tensor]()
        for number in () if self.late else self.order:
            if number == len(self.gates):
                made[number] = self.streams[-1](hidden)
            elif self.gates[number]:
                made[number] = self._gate(number, hidden)
        mixed = made[len(self.gates)] if len(self.gates) in made else self.streams[-1](hidden)
        for number, mixing in enumerate(self._maps()):
            if self.gates[number]:
                mixed = mixed * (made[number] if number in made else self._gate(number, hidden))
            mixed = (mixing @ mixed.mT[..., None])[..., 0].mT
        return self.leave(mixed)

    def definition(self, hidden: np.ndarray) -> np.ndarray:
        """T of each channel, (width, L, L)."""
        T, values = np.eye(len(hidden))[None], applied(self.streams[-1], hidden)
        gates = [applied(stream, hidden) for stream in self.streams[:-1]]
        gates = [
            1 / (1 + np.exp(-gate)) if kind == "sigmoid" else gate for kind, gate in zip(self.gates, gates, strict=True)
        ]
        if self.gates[0] and not self.late and self.order.index(0) < self.order.index(len(self.gates)):
            gates[0] = values
        for number, mixing in enumerate(self._maps().detach().double().numpy()):
            T = mixing @ (gates[number].T[..., None] * T if self.gates[number] else T)
        return T


def drawn_linear(chance: Random, width: int, length: int) -> LinearAttention:
    """Linear attention of one, two or four heads."""
    fading = chance.random() < 0.5
    decays = tuple(chance.uniform(0.5, 1) if fading else 1.0 for _ in range(chance.choice((1, 2, 4))))
    spelling = chance.choice(("tril", "masked_fill", "loop"))
    return LinearAttention(width, decays, chance.choice(("plain", "elu", "exp")), spelling)


def drawn_memory(chance: Random, width: int, length: int) -> GatedMemory:
    """A gated memory of one or two heads."""
    return GatedMemory(width, chance.choice((1, 2)), chance.choice(("head", "key", "delta")))


def drawn_recurrence(chance: Random, width: int, length: int) -> ChannelRecurrence:
    """A recurrence of single channels."""
    return ChannelRecurrence(width, chance.random() < 0.5)


def drawn_convolution(chance: Random, width: int, length: int) -> OwnConvolution:
    """A causal convolution."""
    spelling = chance.choice(("padded", "cut", "fft", "shifted"))
    return OwnConvolution(width, chance.randint(2, 5), chance.choice((1, 1, 2, 3)), spelling)


def drawn_gathered(chance: Random, width: int, length: int) -> Gathered:
    """A layer that gathers at most half of the tokens."""
    return Gathered(width, chance.randint(2, length // 2), chance.choice(("topk", "argsort")))


def drawn_chain(chance: Random, width: int, length: int) -> Chain:
    """Two or three long convolutions with gates."""
    gates = tuple(chance.choice(("", "sigmoid", "linear")) for _ in range(chance.choice((2, 2, 3))))
    return Chain(width, length, gates, late=chance.random() < 0.5)
