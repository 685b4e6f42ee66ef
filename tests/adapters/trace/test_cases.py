"""Layers of users that were measured wrongly or refused untruly, each with its T by hand in float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention.flex_attention import create_block_mask, flex_attention
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import statesize as ss
from statesize.adapters.select import NothingMeasuredError
from statesize.codes import Code, Note

WIDTH, TOKENS = 8, 40
AHEAD = {Code.NOT_CAUSAL, Code.LOOKS_AHEAD, Code.LATER_POSITIONS}
TOLD = {Code.PART, Code.MIXED_BEFORE, Code.BEFORE_PARTS}


def softmax_map(query: Tensor, key: Tensor, before: Tensor | None = None) -> Tensor:
    """Softmax of q kᵀ row by row, (S, 1, L, L), beside a key of all rows (S, W) where there is one."""
    T = torch.zeros(len(query), 1, query.shape[1], query.shape[1], dtype=query.dtype)
    for s in range(len(query)):
        for i in range(query.shape[1]):
            scores = [query[s, i] @ key[s, j] for j in range(i + 1)] + (
                [] if before is None else list(before[s] @ query[s, i])
            )
            weights = torch.stack(scores).exp()
            T[s, 0, i, : i + 1] = (weights / weights.sum())[: i + 1]
    return T


def fading(fade: Tensor) -> Tensor:
    """T[i, j] = a_i … a_{j+1} of each channel, (S, C, L, L), of a (S, L, C)."""
    T = torch.zeros(len(fade), fade.shape[2], fade.shape[1], fade.shape[1], dtype=fade.dtype)
    for j in range(fade.shape[1]):
        passed = torch.ones_like(fade[:, 0])
        for i in range(j, fade.shape[1]):
            passed = passed * fade[:, i] if i > j else passed
            T[:, :, i, j] = passed
    return T


def taps_map(taps: Tensor, length: int) -> Tensor:
    """T of taps (C, K), of which the last is of lag 0, (1, C, L, L)."""
    T = torch.zeros(1, len(taps), length, length, dtype=taps.dtype)
    for lag in range(min(taps.shape[1], length)):
        T[:, :, range(lag, length), range(length - lag)] = taps[:, -1 - lag, None]
    return T


class Own(nn.Module):
    """Projections, and the mixings of a user's own code."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value, self.fade, self.output = (nn.Linear(WIDTH, WIDTH) for _ in range(5))
        self.convolution = nn.Conv1d(WIDTH, WIDTH, 4, groups=WIDTH, padding=3)

    def forward(self, hidden: Tensor) -> Any:
        """The projection of what was mixed."""
        return self.output(self.mixed(hidden))

    def attend(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        later = torch.ones(query.shape[1], query.shape[1]).triu(1).bool()
        return (query @ key.mT).masked_fill(later, -torch.inf).softmax(-1) @ value

    def scan(self, fade: Tensor, value: Tensor) -> Tensor:
        state, rows = torch.zeros_like(value[:, 0]), []
        for t in range(value.shape[1]):
            state = fade[:, t] * state + value[:, t]
            rows.append(state)
        return torch.stack(rows, 1)

    def convolved(self, value: Tensor) -> Tensor:
        return self.convolution(value.mT)[..., : value.shape[1]].mT

    def convolved_by_spectra(self, value: Tensor) -> Tensor:
        length = value.shape[1]
        spectra = (torch.fft.rfft(part, 2 * length, 1) for part in (value, self.convolution.weight[:, 0].mT[None]))
        return torch.fft.irfft(torch.mul(*spectra), 2 * length, 1)[:, :length]

    def softmax(self, hidden: Tensor) -> Tensor:
        return softmax_map(self.query(hidden), self.key(hidden))

    def taps(self, hidden: Tensor) -> Tensor:
        return taps_map(self.convolution.weight[:, 0], hidden.shape[1])

    def faded(self, hidden: Tensor) -> Tensor:
        return fading(self.fade(hidden).sigmoid())


class ShortModule(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(WIDTH, 1, 3))

    def forward(self, value: Tensor) -> Tensor:
        return F.conv1d(F.pad(value.mT, (2, 0)), self.weight, groups=WIDTH).mT


class Fed(Own):
    """A measured module feeds what two mixings share."""

    gain = 1.0

    def __init__(self) -> None:
        super().__init__()
        self.short = ShortModule()

    def mixed(self, hidden: Tensor) -> Tensor:
        value = self.short(self.value(hidden))
        lag = torch.arange(hidden.shape[1])[:, None] - torch.arange(hidden.shape[1])
        decay = (0.9 ** lag.clamp(min=0)).tril().to(hidden.dtype)
        return self.attend(self.query(hidden), self.key(hidden), value) + self.gain * (decay @ value)

    def right(self, hidden: Tensor) -> list[Tensor]:
        both = self.softmax(hidden) + self.gain * fading(torch.full_like(hidden[..., :1], 0.9))
        return [both @ taps_map(self.short.weight[:, 0], hidden.shape[1]), both]


class LoudlyFed(Fed):
    gain = 50.0


class FedActivated(Fed):
    """The module activates, so that T begins behind it."""

    def __init__(self) -> None:
        super().__init__()
        self.short = nn.Sequential(ShortModule(), nn.SiLU())

    def right(self, hidden: Tensor) -> list[Tensor]:
        return [self.softmax(hidden) + self.gain * fading(torch.full_like(hidden[..., :1], 0.9))]


class Leak(Own):
    """Later tokens enter what is made of earlier ones."""

    into = "queries"

    def leaked(self, hidden: Tensor) -> Tensor:
        # As a factor: what is added to all keys leaves a softmax as it is.
        return hidden * (1 + hidden[:, :8].mean(1, keepdim=True))

    def mixed(self, hidden: Tensor) -> Tensor:
        parts = {name: self.leaked(hidden) if name == self.into else hidden for name in ("queries", "keys", "decays")}
        query, key, value = self.query(parts["queries"]), self.key(parts["keys"]), self.value(hidden)
        if self.into == "decays":
            return self.scan(self.fade(parts["decays"]).sigmoid(), value)
        mixed = self.attend(query, key, value)
        return mixed / self.leaked(hidden).norm(dim=-1, keepdim=True) if self.into == "norm" else mixed


class LeakIntoKeys(Leak):
    into = "keys"


class LeakIntoDecays(Leak):
    into = "decays"


class LeakIntoNorm(Leak):
    into = "norm"


class LeakOf(Leak):
    """One token reads the next one."""

    place = 0

    def leaked(self, hidden: Tensor) -> Tensor:
        place = self.place % hidden.shape[1]
        return torch.cat(
            [
                hidden[:, :place],
                hidden[:, place : place + 1] + hidden[:, place + 1 : place + 2],
                hidden[:, place + 1 :],
            ],
            1,
        )


class LeakOfFirst(LeakOf):
    place = 1


class LeakBetween(LeakOf):
    place = 13


class LeakOfLast(LeakOf):
    place = -2


class TimeFirst(Own):
    """A recurrence over the first dimension."""

    first = 0

    def forward(self, hidden: Tensor) -> Tensor:
        fade, value = self.fade(hidden).sigmoid(), self.value(hidden)
        state, rows = torch.zeros_like(value[0]), []
        for t in range(len(value)):
            state = fade[t] * state + value[t]
            rows.append(state)
        return self.output(torch.stack(rows))

    def right(self, hidden: Tensor) -> list[Tensor]:
        return [self.faded(hidden)]


class ChannelsFirst(Own):
    first = 2

    def forward(self, hidden: Tensor) -> Tensor:
        return F.silu(self.convolution(hidden)[..., : hidden.shape[2]])

    def right(self, hidden: Tensor) -> list[Tensor]:
        return [self.taps(hidden)]


class OneText(Own):
    """Another rule for one text than for several."""

    def mixed(self, hidden: Tensor) -> Tensor:
        query = self.query(hidden)
        return self.attend(query / 4 if len(hidden) == 1 else query, self.key(hidden), self.value(hidden))

    def right(self, hidden: Tensor) -> list[Tensor]:
        return [softmax_map(self.query(hidden) / (4 if len(hidden) == 1 else 1), self.key(hidden))]


class OneTextScan(Own):
    def mixed(self, hidden: Tensor) -> Tensor:
        fade = self.fade(hidden).sigmoid()
        return self.scan(fade**3 if len(hidden) == 1 else fade, self.value(hidden))

    def right(self, hidden: Tensor) -> list[Tensor]:
        return [fading(self.fade(hidden).sigmoid() ** (3 if len(hidden) == 1 else 1))]


class OwnGate(Own):
    """The values gate what a scan of them gives."""

    def shifted(self, hidden: Tensor) -> Tensor:
        value = self.value(hidden)
        return 0.6 * value + 0.4 * F.pad(value, (0, 0, 1, 0))[:, :-1]

    def mixed(self, hidden: Tensor) -> Tensor:
        value = self.shifted(hidden)
        return self.scan(self.fade(hidden).sigmoid(), value) * value

    def right(self, hidden: Tensor) -> list[Tensor]:
        shift = taps_map(hidden.new_tensor([[0.4, 0.6]]), hidden.shape[1])
        return [self.faded(hidden) @ shift]


class Ties(Own):
    """The four largest weights of each row: of equal ones, those that torch takes."""

    def mixed(self, hidden: Tensor) -> Tensor:
        scores = self.query(hidden) @ self.key(hidden).mT
        scores = scores.masked_fill(torch.ones_like(scores[0]).triu(1).bool(), -torch.inf)
        places = scores.topk(4, -1).indices
        self.places = places
        kept = torch.full_like(scores, -torch.inf).scatter(-1, places, scores.gather(-1, places))
        return kept.softmax(-1) @ self.value(hidden)

    def right(self, hidden: Tensor) -> list[Tensor]:
        taken = getattr(self, "taken", self.places)
        T = hidden.new_zeros(len(hidden), 1, hidden.shape[1], hidden.shape[1])
        for s in range(len(hidden)):
            for i in range(hidden.shape[1]):
                seen = [j for j in taken[s, i].tolist() if j <= i]
                weights = torch.stack([self.query(hidden)[s, i] @ self.key(hidden)[s, j] for j in seen]).softmax(0)
                T[s, 0, i, seen] = weights
        return [T]


class TiesOfKeys(Ties):
    """The four columns of the largest bias of their own."""

    def mixed(self, hidden: Tensor) -> Tensor:
        query, key, value = self.query(hidden), self.key(hidden), self.value(hidden)
        bias = F.softplus(self.fade(value))[..., :1].mT.expand(-1, hidden.shape[1], -1)
        later = torch.ones_like(bias[0]).triu(1).bool()
        self.places = bias.masked_fill(later, -torch.inf).topk(4, -1).indices
        kept = torch.zeros_like(bias).scatter(-1, self.places, 1.0).bool()
        return (query @ key.mT).masked_fill(~kept | later, -torch.inf).softmax(-1) @ value


class ShortBehind(Own):
    """A linear convolution module behind."""

    def mixed(self, hidden: Tensor) -> Tensor:
        return self.convolved(self.attend(self.query(hidden), self.key(hidden), self.value(hidden)))

    def right(self, hidden: Tensor) -> list[Tensor]:
        return [self.taps(hidden) @ self.softmax(hidden)]


class ActivatedShortBehind(ShortBehind):
    def mixed(self, hidden: Tensor) -> Tensor:
        return F.silu(super().mixed(hidden))


class ShortBehindActivation(ShortBehind):
    """SiLU parts the convolution from the attention, which alone is measured."""

    def mixed(self, hidden: Tensor) -> Tensor:
        return self.convolved(F.silu(self.attend(self.query(hidden), self.key(hidden), self.value(hidden))))

    def right(self, hidden: Tensor) -> list[Tensor]:
        return [self.softmax(hidden)]


class CutConvolution(Own):
    def forward(self, hidden: Tensor) -> Tensor:
        return self.convolved(hidden)

    def right(self, hidden: Tensor) -> list[Tensor]:
        return [self.taps(hidden)]


class Mapped(Own):
    """A kernel under torch.vmap."""

    def mixed(self, hidden: Tensor) -> Tensor:
        def kernel(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
            return F.scaled_dot_product_attention(query[None], key[None], value[None], is_causal=True, scale=1.0)[0]

        return torch.vmap(kernel)(self.query(hidden), self.key(hidden), self.value(hidden))

    def right(self, hidden: Tensor) -> list[Tensor]:
        return [self.softmax(hidden)]


class FlexWithSums(Mapped):
    def mixed(self, hidden: Tensor) -> Tensor:
        mask = create_block_mask(lambda b, h, i, j: i >= j, None, None, *[hidden.shape[1]] * 2, device="cpu")
        parts = (part(hidden)[:, None] for part in (self.query, self.key, self.value))
        return flex_attention(*parts, block_mask=mask, scale=1.0, return_lse=True)[0][:, 0]


class ZeroAtFirst(Own):
    """What each token reads is of the tokens before it."""

    def mixed(self, hidden: Tensor) -> Tensor:
        states = self.scan(self.fade(hidden).sigmoid(), self.value(hidden))
        return torch.cat([torch.zeros_like(states[:, :1]), states[:, :-1]], 1)

    def right(self, hidden: Tensor) -> list[Tensor]:
        T = self.faded(hidden)
        return [torch.cat([torch.zeros_like(T[:, :, :1]), T[:, :, :-1]], 2)]


class Prepended(Own):
    """Two registers stand before the text and are cut away."""

    def __init__(self) -> None:
        super().__init__()
        self.registers = nn.Parameter(torch.randn(1, 2, WIDTH))

    def mixed(self, hidden: Tensor) -> Tensor:
        longer = torch.cat([self.registers.expand(len(hidden), -1, -1), hidden], 1)
        return self.attend(self.query(longer), self.key(longer), self.value(longer))[:, 2:]

    def right(self, hidden: Tensor) -> list[Tensor]:
        return [softmax_map(self.query(hidden), self.key(hidden), self.key(self.registers).expand(len(hidden), -1, -1))]


class BiasKey(nn.Module):
    """torch's attention with a learned key and value beside those of the text."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(WIDTH, 1, batch_first=True, add_bias_kv=True)

    def forward(self, hidden: Tensor) -> Tensor:
        later = torch.ones(hidden.shape[1], hidden.shape[1]).triu(1).bool()
        return self.attention(hidden, hidden, hidden, attn_mask=later, need_weights=False)[0]

    def right(self, hidden: Tensor) -> list[Tensor]:
        attention = self.attention
        query, key, _ = F.linear(hidden, attention.in_proj_weight, attention.in_proj_bias).chunk(3, -1)
        return [softmax_map(query / WIDTH**0.5, key, attention.bias_k.expand(len(hidden), -1, -1))]


class Answer(NamedTuple):
    hidden: Tensor
    state: None


class Named(Own):
    def forward(self, hidden: Tensor) -> Answer:
        return Answer(self.output(self.scan(self.fade(hidden).sigmoid(), self.value(hidden))), None)

    def right(self, hidden: Tensor) -> list[Tensor]:
        return [self.faded(hidden)]


class ModuleOfArguments(nn.Module):
    """Takes what decays are made of, and values, which it writes with 1 - a."""

    def __init__(self) -> None:
        super().__init__()
        self.fade = nn.Linear(WIDTH, WIDTH)

    def forward(self, source: Tensor, values: Tensor) -> Tensor:
        fade = self.fade(source).sigmoid()
        return Own.scan(self, fade, values * (1 - fade))


class Arguments(Own):
    """Arguments were computed before what a module makes of them."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = ModuleOfArguments()

    def mixed(self, hidden: Tensor) -> Tensor:
        return self.inner(hidden, self.value(hidden))

    def right(self, hidden: Tensor) -> list[Tensor]:
        fade = self.inner.fade(hidden).sigmoid()
        return [fading(fade) * (1 - fade).mT[:, :, None]]


class DecaysLikeValues(Own):
    """Of values only their shape is read."""

    def mixed(self, hidden: Tensor) -> Tensor:
        value = self.value(hidden)
        return self.scan(torch.full_like(value, 0.9), value)

    def right(self, hidden: Tensor) -> list[Tensor]:
        return [fading(torch.full_like(hidden[..., :1], 0.9))]


class AddedAtPlaces(Own):
    """Values of two and of one token before, added where they belong."""

    def mixed(self, hidden: Tensor) -> Tensor:
        value, length = self.value(hidden), hidden.shape[1]
        mixed = torch.zeros_like(value).index_add(1, torch.arange(2, length), value[:, : length - 2])
        places = torch.arange(1, length)[None, :, None].expand(len(value), -1, WIDTH)
        return mixed.scatter_add(1, places, value[:, : length - 1])

    def right(self, hidden: Tensor) -> list[Tensor]:
        return [taps_map(hidden.new_tensor([[1.0, 1.0, 0.0]]), hidden.shape[1])]


class SumsBeside(Own):
    """Both factors of a scan by sums of logarithms belong to T, whatever is added."""

    def mixed(self, hidden: Tensor) -> Tensor:
        passed = self.fade(hidden).sigmoid().cumprod(1)
        return passed * (self.value(hidden) / passed).cumsum(1) + self.convolved(self.query(hidden))

    def right(self, hidden: Tensor) -> list[Tensor]:
        return [self.faded(hidden)]


class RecurrentBeside(Own):
    """A recurrent module beside attention is told."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(WIDTH, WIDTH, batch_first=True)

    def mixed(self, hidden: Tensor) -> Tensor:
        return self.attend(self.query(hidden), self.key(hidden), self.value(hidden)) + self.lstm(hidden)[0]

    def right(self, hidden: Tensor) -> list[Tensor]:
        return [self.softmax(hidden)]


class Fractions(Own):
    """A normaliser that is multiplied belongs to T as one that divides does."""

    def mixed(self, hidden: Tensor) -> Tensor:
        query, key = self.query(hidden).exp(), self.key(hidden).exp()
        states = torch.einsum("blk,blv->blkv", key, self.value(hidden)).cumsum(1)
        return torch.einsum("blk,blkv->blv", query, states) * (1 / (query * key.cumsum(1)).sum(-1, keepdim=True))

    def right(self, hidden: Tensor) -> list[Tensor]:
        weights = (self.query(hidden).exp() @ self.key(hidden).exp().mT).tril()
        return [(weights / weights.sum(-1, keepdim=True))[:, None]]


class KeysFirst(Own):
    """Keys that are in the normaliser are weights, though they were computed before the values."""

    def mixed(self, hidden: Tensor) -> Tensor:
        key, value = self.key(hidden).exp(), self.value(hidden)
        return (key * value).cumsum(1) / key.cumsum(1)

    def right(self, hidden: Tensor) -> list[Tensor]:
        weights = self.key(hidden).exp().mT[:, :, None].expand(-1, -1, hidden.shape[1], -1).tril()
        return [weights / weights.sum(-1, keepdim=True)]


class FractionAdded(Own):
    """A normaliser that divides what is added to zeros."""

    def mixed(self, hidden: Tensor) -> Tensor:
        weights = (self.query(hidden) @ self.key(hidden).mT).exp().tril()
        return torch.addcdiv(torch.zeros_like(hidden), weights @ self.value(hidden), weights.sum(-1, keepdim=True))

    def right(self, hidden: Tensor) -> list[Tensor]:
        return [self.softmax(hidden)]


class HighestBeside(Own):
    """The highest scores of a window, beside a sum that reaches farther."""

    def mixed(self, hidden: Tensor) -> Tensor:
        window = torch.ones(hidden.shape[1], hidden.shape[1]).tril().triu(-4).bool()
        scores = (self.query(hidden) @ self.key(hidden).mT).masked_fill(~window, -torch.inf)
        highest = scores.masked_fill(scores < scores.topk(3).values[..., -1:], -torch.inf)
        return highest.softmax(-1) @ self.value(hidden) + self.fade(hidden).cumsum(1)

    def right(self, hidden: Tensor) -> list[Tensor]:
        return [fading(torch.ones_like(hidden[:1, :, :1]))]


class SpectrumBehind(Own):
    """A short convolution by spectra, behind an activation."""

    def mixed(self, hidden: Tensor) -> Tensor:
        return self.convolved_by_spectra(F.silu(self.scan(self.fade(hidden).sigmoid(), self.value(hidden))))

    def right(self, hidden: Tensor) -> list[Tensor]:
        return [self.faded(hidden)]


class GateFirst(Own):
    """A gate is computed before values that are convolved farther than the product of both."""

    def mixed(self, hidden: Tensor) -> Tensor:
        gate, value = self.query(hidden).sigmoid(), self.value(hidden)
        return self.convolved(gate * F.silu(value + F.pad(value, (0, 0, 5, 0))[:, :-5]))

    def right(self, hidden: Tensor) -> list[Tensor]:
        return [taps_map(hidden.new_tensor([[1.0, 0, 0, 0, 0, 1]]), hidden.shape[1])]


class GateOfSpectra(Own):
    """A gate is computed before values that are convolved by spectra, whose entries are of no position."""

    def shown(self, hidden: Tensor) -> Tensor:
        return F.silu(self.convolved_by_spectra(self.value(hidden)))

    def mixed(self, hidden: Tensor) -> Tensor:
        gate = self.query(hidden).sigmoid()
        return self.scan(self.fade(hidden).sigmoid(), gate * self.shown(hidden))

    def right(self, hidden: Tensor) -> list[Tensor]:
        return [self.faded(hidden) * self.shown(hidden).mT[:, :, None]]


class ValuesOfSpectra(GateOfSpectra):
    """The gate is computed behind such values, so that T acts on these."""

    def mixed(self, hidden: Tensor) -> Tensor:
        shown = self.shown(hidden)
        return self.scan(self.fade(hidden).sigmoid(), self.query(hidden).sigmoid() * shown)

    def right(self, hidden: Tensor) -> list[Tensor]:
        return [self.faded(hidden) * self.query(hidden).sigmoid().mT[:, :, None]]


class LevelOfSpectra(GateOfSpectra):
    """The tensor that is convolved by spectra has positions alone."""

    def shown(self, hidden: Tensor) -> Tensor:
        level, length = hidden.mean((0, 2)), hidden.shape[1]
        mixed = torch.fft.irfft(torch.fft.rfft(level, 2 * length) * torch.fft.rfft(level.new_ones(2), 2 * length))
        return mixed[None, :length, None]


class SharedHeadBeside(Own):
    """Two heads read the gated values of one, a scan of more channels stands beside, and both are convolved."""

    def mixed(self, hidden: Tensor) -> Tensor:
        gated = self.key(hidden)[..., :1].sigmoid() * F.linear(hidden, self.value.weight[: WIDTH // 2])
        shared = gated[:, :, None].expand(-1, -1, 2, -1).reshape(*hidden.shape)
        attended = self.attend(self.query(hidden), self.key(hidden), shared)
        return self.convolved(attended + self.scan(self.fade(hidden).sigmoid(), self.query(hidden)))

    def right(self, hidden: Tensor) -> list[Tensor]:
        return [self.taps(hidden) @ self.faded(hidden)]


class Model(nn.Module):
    """A layer behind an embedding, in the layer's layout."""

    def __init__(self, layer: type[nn.Module]) -> None:
        super().__init__()
        self.embedding, self.layer = nn.Embedding(TOKENS, WIDTH), layer()

    def order(self, hidden: Tensor) -> Tensor:
        return {0: hidden.transpose(0, 1), 2: hidden.mT}.get(getattr(self.layer, "first", 1), hidden)

    def forward(self, tokens: Tensor) -> Tensor:
        hidden = self.embedding(tokens)
        answer = self.layer(self.order(hidden))
        return hidden + self.order(answer[0] if isinstance(answer, tuple) else answer)


class InTheModel(nn.Module):
    """A convolution module that the model itself cuts."""

    def __init__(self, _: object = None) -> None:
        super().__init__()
        self.embedding, self.layer = nn.Embedding(TOKENS, WIDTH), nn.Conv1d(WIDTH, WIDTH, 4, groups=WIDTH, padding=3)

    def forward(self, tokens: Tensor) -> Tensor:
        hidden = self.embedding(tokens)
        return hidden + self.layer(hidden.mT)[..., : tokens.shape[1]].mT


class Recurrent(nn.Module):
    """A recurrent layer of torch, positions first or packed."""

    def __init__(self, cell: type[nn.Module], states: int, *, packed: bool = False) -> None:
        super().__init__()
        self.embedding, self.layer, self.packed = nn.Embedding(TOKENS, WIDTH), cell(WIDTH, states), packed

    def forward(self, tokens: Tensor) -> Tensor:
        hidden = self.embedding(tokens).transpose(0, 1)
        if not self.packed:
            return self.layer(hidden)[0].transpose(0, 1)
        packed = pack_padded_sequence(hidden, [len(hidden)] * hidden.shape[1])
        return pad_packed_sequence(self.layer(packed)[0])[0].transpose(0, 1)


def made(build: Callable[[], nn.Module]) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return build().double().eval().requires_grad_(False)


def texts(count: int, length: int, repeated: bool = False) -> Tensor:
    ids = torch.randint(0, TOKENS, (count, length), generator=torch.Generator().manual_seed(5))
    return ids[:, :1].expand(count, length).contiguous() if repeated else ids


@torch.no_grad()
def right(model: nn.Module, ids: Tensor) -> list[Tensor]:
    hidden = model.embedding(ids)
    if isinstance(model.layer, Ties):
        model(ids)
        model.layer.taken = model.layer.places
    if isinstance(model, InTheModel):
        return [taps_map(model.layer.weight[:, 0], ids.shape[1])]
    return model.layer.right(hidden)


MEASURED = [
    pytest.param(Fed, 1, 24, id="a measured module feeds two mixings"),
    pytest.param(LoudlyFed, 1, 24, id="a measured module feeds two mixings, one of them loud"),
    pytest.param(TimeFirst, 12, 12, id="time first, as many texts as tokens"),
    pytest.param(TimeFirst, 8, 8, id="time first, as many texts as tokens and channels"),
    pytest.param(ChannelsFirst, 12, 12, id="channels first, as many texts as tokens"),
    pytest.param(ChannelsFirst, 1, 8, id="channels first, as many tokens as channels"),
    pytest.param(OneText, 1, 16, id="another rule for one text, of one"),
    pytest.param(OneText, 3, 16, id="another rule for one text, of three"),
    pytest.param(OneTextScan, 1, 16, id="another rule for one text, of one, in a scan"),
    pytest.param(OneTextScan, 3, 16, id="another rule for one text, of three, in a scan"),
    pytest.param(OwnGate, 1, 16, id="the values gate their own scan"),
    pytest.param(Ties, 2, 16, id="ties of repeated tokens"),
    pytest.param(TiesOfKeys, 2, 16, id="ties of repeated tokens' biases"),
    pytest.param(ShortBehind, 1, 16, id="a convolution module behind"),
    pytest.param(ActivatedShortBehind, 1, 16, id="a convolution module behind, then SiLU"),
    pytest.param(CutConvolution, 1, 16, id="a convolution module cut to length"),
    pytest.param(InTheModel, 1, 16, id="a convolution module that the model cuts"),
    pytest.param(Mapped, 2, 16, id="attention under vmap"),
    pytest.param(FlexWithSums, 1, 16, id="flex attention that returns its sums"),
    pytest.param(ZeroAtFirst, 1, 16, id="zero at the first token"),
    pytest.param(Prepended, 1, 16, id="registers before the text"),
    pytest.param(BiasKey, 1, 16, id="a learned key beside the text"),
    pytest.param(Named, 1, 16, id="a named tuple"),
    pytest.param(Arguments, 1, 16, id="arguments of a module"),
    pytest.param(DecaysLikeValues, 1, 16, id="decays of the shape of values"),
    pytest.param(AddedAtPlaces, 1, 16, id="sums at places"),
    pytest.param(Fractions, 1, 16, id="a normaliser that is multiplied"),
    pytest.param(KeysFirst, 1, 16, id="keys in a normaliser, before the values"),
    pytest.param(FractionAdded, 1, 16, id="a fraction added to zeros"),
]
PART = [
    pytest.param(SumsBeside, 1, 16, id="a scan by sums of logarithms, a convolution beside"),
    pytest.param(RecurrentBeside, 1, 16, id="a recurrent module beside attention"),
    pytest.param(FedActivated, 1, 24, id="a measured module with an activation feeds two mixings"),
    pytest.param(ShortBehindActivation, 1, 16, id="a convolution module behind an activation"),
    pytest.param(HighestBeside, 1, 16, id="the highest scores of a window, a sum beside"),
    pytest.param(SpectrumBehind, 1, 16, id="a convolution by spectra behind an activation"),
    pytest.param(GateFirst, 1, 16, id="a gate before convolved values"),
    pytest.param(GateOfSpectra, 1, 16, id="a gate beside values convolved by spectra"),
    pytest.param(LevelOfSpectra, 1, 16, id="a gate beside a level convolved by spectra"),
    pytest.param(ValuesOfSpectra, 1, 16, id="values convolved by spectra, then a gate"),
    pytest.param(SharedHeadBeside, 1, 16, id="a gated head that two read, a scan beside"),
]
LEAKS = [
    pytest.param(Leak, 1, 24, id="the first tokens enter queries"),
    pytest.param(LeakIntoKeys, 1, 24, id="the first tokens enter keys"),
    pytest.param(LeakIntoDecays, 1, 24, id="the first tokens enter decays"),
    pytest.param(LeakIntoNorm, 1, 24, id="the first tokens enter a norm"),
    pytest.param(LeakOfFirst, 1, 24, id="the second token reads the third"),
    pytest.param(LeakBetween, 1, 24, id="a token in the middle reads the next"),
    pytest.param(LeakOfLast, 1, 24, id="the last but one reads the last"),
]
NO_T = [
    pytest.param(lambda: Recurrent(nn.LSTM, 6), 16, 16, id="LSTM, as many texts as tokens"),
    pytest.param(lambda: Recurrent(nn.GRU, 8), 8, 8, id="GRU, as many texts as tokens and channels"),
]


def whole(layer: type[nn.Module]) -> Callable[[], nn.Module]:
    return InTheModel if layer is InTheModel else lambda: Model(layer)


def off(item: Any, T: Tensor) -> float:
    """How far T of each channel is below the diagonal, relative to its largest value."""
    found = item.operator.dense().double().repeat_interleave(item.multiplicity, 1)
    if item.kind == "derivative" or found.shape[1] % T.shape[1] or found.shape[-1] != T.shape[-1]:
        return float("inf")
    T = T.expand(len(found), -1, -1, -1).repeat_interleave(found.shape[1] // T.shape[1], 1)
    return float((found - T).tril(-1).abs().max() / T.tril(-1).abs().max())


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.filterwarnings("ignore:.*return_lse")
@pytest.mark.parametrize(("layer", "count", "length"), MEASURED)
def test_t_is_that_of_the_whole(layer: type[nn.Module], count: int, length: int) -> None:
    model, ids = made(whole(layer)), texts(count, length, issubclass(layer, Ties))
    expected = right(model, ids)
    assert min(off(item, T) for item in ss.capture(model, ids) for T in expected) < 1e-9


@pytest.mark.parametrize(("layer", "count", "length"), PART)
def test_what_stands_around_t_is_told(layer: type[nn.Module], count: int, length: int) -> None:
    model, ids = made(whole(layer)), texts(count, length)
    expected, items = right(model, ids)[0], list(ss.capture(model, ids))
    measured = next(item for item in items if off(item, expected) < 1e-9)
    assert TOLD & {note.code for note in measured.notes}


@pytest.mark.parametrize(("layer", "count", "length"), LEAKS)
def test_a_layer_that_looks_ahead_is_refused(layer: type[nn.Module], count: int, length: int) -> None:
    with pytest.raises(NothingMeasuredError) as error:
        ss.capture(made(whole(layer)), texts(count, length))
    assert {note.code for note in (Note.of(error.value), *error.value.skipped.values())} <= AHEAD


@pytest.mark.parametrize(("build", "count", "length"), NO_T)
def test_a_recurrence_without_t_has_the_derivative_of_each_text(build: Any, count: int, length: int) -> None:
    model, ids, cut = made(build), texts(count, length), length // 2
    (item,) = ss.capture(model, ids)
    assert item.kind == "derivative"
    measured = ss.measure(item.operator, positions=[cut])
    model.packed = False
    for text in range(count):
        hidden = model.embedding(ids[text : text + 1]).transpose(0, 1).detach()
        jacobian = torch.autograd.functional.jacobian(lambda part: model.layer(part)[0], hidden)[:, 0, :, :, 0]
        values = torch.linalg.svdvals(jacobian[cut:, :, :cut].flatten(2).flatten(0, 1))
        shares = values / values.sum()
        entropy = (-(shares * shares.clamp(min=1e-300).log()).sum()).exp()
        torch.testing.assert_close(measured.entropy[text].flatten(), entropy[None], rtol=1e-6, atol=0)
