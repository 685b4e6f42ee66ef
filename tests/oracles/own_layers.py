"""Layers of one's own: projections, the mixings that functions make of them, and T of these by their formulas."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention.flex_attention import create_block_mask, flex_attention
from transformers.models.qwen3_next.modeling_qwen3_next import torch_chunk_gated_delta_rule

WIDTH, HEADS, LENGTH = 8, 2, 24
TEXT = torch.randperm(50, generator=torch.Generator().manual_seed(3))[: 2 * LENGTH].view(2, LENGTH)


class Short(nn.Module):
    """A depthwise convolution of three taps, as a module."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.rand(WIDTH, 1, 3))

    def forward(self, hidden: Tensor) -> Tensor:
        return F.conv1d(F.pad(hidden.mT, (2, 0)), self.weight, groups=WIDTH).mT


class Own(nn.Module):
    """Projections, and a function that mixes what they make; T of its parts by their formulas."""

    def __init__(self, mixed: Callable[..., Any], inner: Callable[[], nn.Module] | None = None) -> None:
        super().__init__()
        self.query, self.key, self.value, self.fade, self.gate, self.output = (
            nn.Linear(WIDTH, WIDTH) for _ in "qkvfgo"
        )
        self.short, self.choice, self.mixed = Short(), nn.Linear(WIDTH, 1), mixed
        self.inner: Any = inner and inner()

    def forward(self, hidden: Tensor) -> Any:
        return self.output(self.mixed(self, hidden, self.value(hidden)))

    def maps(self, hidden: Tensor, scale: float = 1.0, queries: Tensor | None = None) -> Tensor:
        """A softmax of scores of each head, (S, H, L, L)."""
        query, key = heads(self.query(hidden) if queries is None else queries), heads(self.key(hidden))
        return (scale / 2 * query @ key.mT).masked_fill(lag(hidden) < 0, -torch.inf).softmax(-1)

    def linear(self, hidden: Tensor) -> Tensor:
        """Products of queries and keys, (S, H, L, L)."""
        return (heads(self.query(hidden)) @ heads(self.key(hidden)).mT).tril()

    def fading(self, hidden: Tensor) -> Tensor:
        """a_i … a_{j+1} of each channel, (S, C, L, L)."""
        passed = F.logsigmoid(self.fade(hidden)).cumsum(1).mT
        return (passed[..., None] - passed[:, :, None]).masked_fill(lag(hidden) < 0, -torch.inf).exp()

    def scan(self, hidden: Tensor, value: Tensor) -> Tensor:
        """The same as a loop."""
        return scanned(self.fade(hidden).sigmoid(), value)

    def taps(self, hidden: Tensor) -> Tensor:
        """T of the short convolution, (1, C, L, L)."""
        weight = F.pad(self.short.weight[:, 0].flip(-1), (0, hidden.shape[1] - 3))
        return weight[:, lag(hidden).clamp(min=0)].tril()[None]

    def attend(self, hidden: Tensor, value: Tensor) -> Tensor:
        return applied(self.maps(hidden), value)

    def fused(self, hidden: Tensor, value: Tensor) -> Tensor:
        parts = (self.query(hidden), self.key(hidden), value)
        return merged(F.scaled_dot_product_attention(*map(heads, parts), is_causal=True))

    def convolved(self, hidden: Tensor) -> Tensor:
        return F.conv1d(F.pad(hidden.mT, (2, 0)), self.short.weight, groups=WIDTH).mT

    def by_spectra(self, hidden: Tensor) -> Tensor:
        """A convolution by three taps, whose spectra are of no position."""
        length = hidden.shape[1]
        spectra = (torch.fft.rfft(part, 2 * length, 1) for part in (hidden, self.short.weight[:, 0].mT[None]))
        return torch.fft.irfft(torch.mul(*spectra), 2 * length, 1)[:, :length]


def scanned(fade: Tensor, value: Tensor) -> Tensor:
    """A fading sum, step by step."""
    state, rows = torch.zeros_like(value[:, 0]), []
    for at in range(value.shape[1]):
        state = fade[:, at] * state + value[:, at]
        rows.append(state)
    return torch.stack(rows, 1)


def cells(own: Own, hidden: Tensor, _: Tensor) -> Tensor:
    """A cell of a few numbers, step by step."""
    state, rows = hidden.new_zeros(len(hidden), own.inner.hidden_size), []
    for entering in hidden.unbind(1):
        state = own.inner(entering, state)
        rows.append(state)
    return F.pad(torch.stack(rows, 1), (0, WIDTH - state.shape[-1]))


def lag(hidden: Tensor) -> Tensor:
    position = torch.arange(hidden.shape[1])
    return position[:, None] - position


def heads(hidden: Tensor) -> Tensor:
    return hidden.unflatten(-1, (HEADS, -1)).transpose(1, 2)


def merged(mixed: Tensor) -> Tensor:
    return mixed.transpose(1, 2).flatten(2)


def applied(T: Tensor, value: Tensor) -> Tensor:
    """What maps of heads make of values."""
    return merged(T @ heads(value))


def wide(T: Tensor) -> Tensor:
    """T of each channel."""
    return T.repeat_interleave(WIDTH // T.shape[1], 1)


def powers(hidden: Tensor, rate: float) -> Tensor:
    return (rate ** lag(hidden).clamp(min=0).to(hidden)).tril()


def delayed(hidden: Tensor, by: int = 1) -> Tensor:
    return F.pad(hidden, (0, 0, by, 0))[:, : hidden.shape[1]]


def shifted(hidden: Tensor) -> Tensor:
    return hidden + 0.5 * delayed(hidden)


def delay(hidden: Tensor, by: int = 1) -> Tensor:
    return (lag(hidden) == by).to(hidden)[None, None]


def ones(_: Own, hidden: Tensor) -> Tensor:
    return torch.ones_like(lag(hidden)).tril().to(hidden)[None, None]


def maps(own: Own, hidden: Tensor) -> Tensor:
    return own.maps(hidden)


def parts(own: Own, hidden: Tensor, value: Tensor) -> list[Tensor]:
    """Queries, keys and values of each head, (S, H, L, d)."""
    return [heads(part) for part in (own.query(hidden), own.key(hidden), value)]


def flexible(own: Own, hidden: Tensor, value: Tensor, **options: bool) -> Any:
    length = hidden.shape[1]
    mask = create_block_mask(lambda b, h, i, j: i >= j, None, None, length, length, device="cpu")
    return flex_attention(*parts(own, hidden, value), block_mask=mask, **options)


def delta_rule(own: Own, hidden: Tensor, value: Tensor) -> Tensor:
    """A scan that is known by its name in this file, in float32."""
    query, key, values = (part.unflatten(-1, (HEADS, -1)) for part in (own.query(hidden), own.key(hidden), value))
    decay = F.logsigmoid(hidden[..., :HEADS])
    mixed = torch_chunk_gated_delta_rule(query, key, values, g=decay, beta=decay.exp(), use_qk_l2norm_in_kernel=True)[0]
    return mixed.flatten(2)


def model_of(
    mixed: Callable[..., Any], inner: Callable[[], nn.Module] | None = None, seed: int = 0, layer: type[Own] = Own
) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Embedding(50, WIDTH), layer(mixed, inner)).double().requires_grad_(False)
