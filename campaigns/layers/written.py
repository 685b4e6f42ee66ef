"""Layers as users write them: a mixing, what stands before, beside and behind it, gates, layouts and forms."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from campaigns.layers.mixings import Attention, Mean, Memory, Mixing, NotLinear, Scan, Taps

WIDTH = 8
MIXINGS = {Attention: 6, Memory: 4, Scan: 4, Taps: 3, Mean: 1, NotLinear: 1}
LEAKS: dict[str, Callable[[Tensor], Tensor]] = {
    "mean of the first": lambda hidden: hidden + hidden[:, :4].mean(1, keepdim=True),
    "mean of all": lambda hidden: hidden - hidden.mean(1, keepdim=True),
    "largest of all": lambda hidden: hidden / hidden.abs().amax(1, keepdim=True),
    "rolled around": lambda hidden: hidden + hidden.roll(1, 1),
    "last token": lambda hidden: hidden + 0.1 * hidden[:, -1:],
    "one ahead": lambda hidden: torch.cat([hidden[:, :-3], hidden[:, -2:-1], hidden[:, -2:]], 1),
    "second reads third": lambda hidden: torch.cat([hidden[:, :1], hidden[:, 1:2] + hidden[:, 2:3], hidden[:, 2:]], 1),
}  # what lets a layer see later positions


@dataclass(frozen=True)
class Expected:
    """T of one text by the rule, (C, L, L); `parts` may have rows if other mixing is told, None where it may be."""

    right: list[Tensor]
    parts: list[Tensor]
    told: bool | None


class Feed(nn.Module):
    """A mixer of its own, whose output feeds another one."""

    def __init__(self, chance: Random, length: int) -> None:
        super().__init__()
        self.enter, self.leave = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.mixing: Mixing = chance.choice((Taps, Scan))(chance, WIDTH, length)

    def forward(self, hidden: Tensor) -> Tensor:
        return self.leave(self.mixing(hidden, self.enter(hidden)))


class Written(nn.Module):
    """A layer; what is drawn of it stands in its fields."""

    def __init__(self, chance: Random, length: int) -> None:
        super().__init__()

        def some(share: float, *choices: str) -> str:
            return chance.choice(choices) if chance.random() < share else ""

        self.prefix = 2 if chance.random() < 0.1 else 0  # registers before the text
        self.as_modules = chance.random() < 0.2  # else what mixes is written into the layer's own forward
        length += self.prefix
        self.mixing: Mixing = chance.choices(list(MIXINGS), list(MIXINGS.values()))[0](chance, WIDTH, length)
        self.before = some(0.45, "taps", "taps", "silu", "norm", "feed")
        self.gate = some(0.35, "behind the values", "before the values", "head")
        self.statistics = some(0.25, "mean", "shift", "half alone")
        self.beside = some(0.35, "same", "same", "other")
        self.after = some(0.25, "later", "taps", "silu taps")
        self.out = some(0.5, "gate", "values", "norm", "skip")
        self.layout, self.form = some(0.25, "time", "channels"), some(0.35, "tuple", "dict", "dict", "tuple")
        self.leak, self.leaks_into = some(0.15, *LEAKS), chance.choice(("values", "queries", "gate"))
        # What has no queries leaks through its gate, and so does what may read one position alone, as whose softmax is
        # 1; a delay or registers would undo some leaks.
        strided = isinstance(self.mixing, Attention) and self.mixing.rule == "strided"
        if self.leaks_into == "queries" and (strided or not isinstance(self.mixing, Attention | Memory)):
            self.leaks_into = "gate"
        if self.leak:
            self.prefix, self.after = 0, self.after.replace("later", "")
            self.out = "gate" if self.leaks_into == "gate" else self.out
        enters = len(set(self.mixing.reads.tolist()))
        self.before, self.after = ("", "") if isinstance(self.mixing, NotLinear) else (self.before, self.after)
        self.value, self.strength = nn.Linear(WIDTH, enters), nn.Linear(WIDTH, 1 if self.gate == "head" else enters)
        self.other, self.gates, self.leave = (nn.Linear(WIDTH, WIDTH) for _ in range(3))
        self.short = Taps(chance, enters, length, chance.choice(("module", "padded", "rolled")), chance.choice((2, 4)))
        self.feed = Feed(chance, length) if self.before == "feed" else None
        beside = chance.choice((Taps, Scan, Mean)) if self.beside else None
        self.second: Mixing | None = beside(chance, WIDTH, length) if beside else None
        self.behind = Taps(chance, WIDTH, length, chance.choice(("module", "padded", "fft")), 3)
        self.norm, self.skip = nn.RMSNorm(WIDTH), nn.Parameter(torch.randn(WIDTH))
        self.register = nn.Parameter(torch.randn(1, self.prefix, WIDTH))

    def mixed(self, hidden: Tensor) -> Tensor:
        """What the layer makes of (S, L, W), from its layout and out of its form."""
        out = self(self._ordered(hidden))
        return self._ordered(out["hidden"] if self.form == "dict" else out[0] if self.form else out)

    def _ordered(self, hidden: Tensor) -> Tensor:
        return {"time": hidden.transpose(0, 1), "channels": hidden.mT}.get(self.layout, hidden)

    def forward(self, hidden: Tensor) -> Any:
        mixed = self._ordered(self._mixed(self._ordered(hidden)))
        return {"": mixed, "dict": {"hidden": mixed}}.get(self.form, (mixed, None))

    def _mixed(self, hidden: Tensor) -> Tensor:
        hidden = torch.cat([self.register.expand(len(hidden), -1, -1), hidden], 1) if self.prefix else hidden
        leaked = LEAKS[self.leak](hidden) if self.leak else hidden
        source = self._source(leaked if self.leaks_into == "queries" else hidden)
        first = self.strength(hidden).sigmoid() if self.gate == "before the values" else None
        values = shown = self._values(leaked if self.leaks_into == "values" else hidden)
        if self.gate:
            values = (self.strength(hidden).sigmoid() if first is None else first) * values
        mixed = self._part(self.mixing, source, values)
        wide = len(self.value.weight) == WIDTH
        if self.second is not None:
            same = values if wide else values[..., self.mixing.reads]
            mixed = mixed + self._part(self.second, hidden, same if self.beside == "same" else self.other(hidden))
        mixed, shown, leaked = mixed[:, self.prefix :], shown[:, self.prefix :], leaked[:, self.prefix :]
        if self.after == "later":
            mixed = F.pad(mixed, (0, 0, 1, 0))[:, :-1]
        elif self.after:
            mixed = self._part(self.behind, hidden, F.silu(mixed) if self.after == "silu taps" else mixed)
        shown = shown if wide else shown[..., self.mixing.reads]
        if self.out == "gate":
            mixed = mixed * F.silu(self.gates(leaked if self.leaks_into == "gate" else hidden[:, self.prefix :]))
        elif self.out in ("values", "skip"):
            mixed = mixed * shown if self.out == "values" else mixed + self.skip * shown
        return self.leave(self.norm(mixed) if self.out == "norm" else mixed)

    def _part(self, part: nn.Module, source: Tensor, values: Tensor) -> Tensor:
        return part(source, values) if self.as_modules else part.forward(source, values)

    def _source(self, hidden: Tensor) -> Tensor:
        mean = hidden.cumsum(1) / torch.arange(1, hidden.shape[1] + 1)[:, None]
        before, alone = F.pad(hidden, (0, 0, 1, 0))[:, :-1], hidden / (2 if len(hidden) == 1 else 1)
        return {"": hidden, "mean": hidden + mean, "shift": (hidden + before) / 2}.get(self.statistics, alone)

    def _values(self, hidden: Tensor) -> Tensor:
        values = self.value(self.feed(hidden) if self.feed is not None else hidden)
        if self.before in ("taps", "silu"):
            values = self._part(self.short, hidden, values)
        values = F.silu(values) if self.before == "silu" else values
        return F.normalize(values, dim=-1) if self.before == "norm" else values

    @torch.no_grad()
    def definition(self, entering: Tensor) -> list[Expected]:
        """What may be measured of each text of what enters the layer, in its layout."""
        exact, hidden = copy.deepcopy(self).double(), self._ordered(entering).double()
        hidden = torch.cat([exact.register.expand(len(hidden), -1, -1), hidden], 1)
        return [exact._expected(*x) for x in zip(hidden, exact._source(hidden), exact._values(hidden), strict=True)]

    def _expected(self, hidden: Tensor, source: Tensor, values: Tensor) -> Expected:
        reads, n, eye = self.mixing.reads, self.prefix, torch.eye(len(hidden)).double().expand(WIDTH, -1, -1)
        delay, behind = eye.roll(1, 1).tril(-1), self.behind.definition(source)
        short = self.short.definition(source)[reads] if self.before in ("taps", "silu") else 0 * eye
        mixing = self.mixing.definition(source)
        beside = self.second.definition(hidden) if self.second is not None else 0 * eye
        gate = self.strength(hidden).sigmoid().expand_as(values) if self.gate else torch.ones_like(values)
        gate, numbers = (factor[:, reads].T[:, None] for factor in (gate, values))
        # Of two factors the first one, but where a convolution of the other one belongs to T.
        factor = numbers if self.gate == "before the values" and self.before != "taps" else gate
        befores = [short, eye] if self.before == "taps" else [eye]
        afters = {"later": [delay, eye], "taps": [behind, eye]}.get(self.after, [eye])
        same = mixing + beside if self.beside == "same" else mixing
        # What is added of the values brings what is mixed in them; a module's T is without the gate outside of it.
        brought = (self.before, self.out) == ("taps", "skip") and self.after != "silu taps"
        skip = self.skip[:, None, None] * short * brought
        outside = [torch.ones_like(factor), gate, numbers] if self.as_modules else []
        whole = [afters[0] @ (same * f) @ befores[0] + skip for f in (factor, *outside[:1])]
        others = [afters[0] @ beside] * (self.beside == "other") + [short] * (self.before == "silu")
        others += [behind] * (self.after == "silu taps")
        around = [(a, f, b) for a in afters for f in (factor, *outside) for b in befores]
        parts = [a @ (T * f) @ b for T in (same, mixing, beside) for a, f, b in around]
        parts += [short, behind, delay] + ([self.feed.mixing.definition(hidden)] if self.feed is not None else [])
        pieces, parts = ([T[:, n:, n:] for T in Ts if T.tril(-1).any()] for Ts in (whole + others, parts))
        lags = [int((T.abs().amax(0) > 1e-12).nonzero().diff().neg().max()) for T in pieces]
        right = [T for T, lag in zip(pieces, lags, strict=True) if lag == max(lags)]
        told = self.before == "feed" or bool(others) or bool(self.beside and not mixing.any())
        may = self.before == "taps" or self.after in ("later", "taps") or self.beside == "same" or self.statistics
        return Expected(right, parts + pieces, told or (None if may else False))
