"""One table of layers of one's own: what each mixes, and T by its formula in float64 or the code of its refusal."""

from __future__ import annotations

from collections.abc import Callable
from itertools import permutations
from typing import Any, NamedTuple

import pytest
import torch
from oracles.own_layers import (
    HEADS,
    LENGTH,
    TEXT,
    WIDTH,
    Own,
    Short,
    applied,
    delay,
    delayed,
    delta_rule,
    flexible,
    heads,
    lag,
    maps,
    merged,
    model_of,
    ones,
    parts,
    powers,
    scanned,
    shifted,
    wide,
)
from torch import Tensor, nn
from torch.nn import functional as F

import statesize as ss
from statesize.adapters.module_call import ModuleCall
from statesize.adapters.select import NothingMeasuredError
from statesize.adapters.trace.channels import Around
from statesize.adapters.trace.layer import mixing_around
from statesize.adapters.trace.trace import Trace
from statesize.codes import Code, Note
from statesize.errors import ModelError

TOLD = {Code.PART, Code.MIXED_BEFORE, Code.CONTAINS, Code.BEFORE_PARTS, Code.ROUNDED}


def diagonal(stream: Tensor) -> Tensor:
    return torch.diag_embed(stream.mT)


def by_impulses(mixed: Callable[[Own, Tensor, Tensor], Tensor], own: Own, hidden: Tensor) -> Tensor:
    """T of a function of values, channel by channel, by what it makes of an impulse at each position."""
    nothing, columns = torch.zeros_like(hidden), list[Tensor]()
    for at in range(hidden.shape[1]):
        impulse = nothing.index_fill(1, torch.tensor(at), 1.0)
        columns.append((mixed(own, hidden, impulse) - mixed(own, hidden, nothing)).mT)
    return torch.stack(columns, -1)


def bridged(hidden: Tensor) -> Tensor:
    """The first token of each block of 8 with the token before it."""
    return hidden + (torch.arange(hidden.shape[1]) % 8 == 0)[:, None] * delayed(hidden)


def carried(hidden: Tensor) -> Tensor:
    """The last token of the block before, at each position of a block."""
    last = torch.arange(hidden.shape[1]) // 8 * 8 - 1
    return torch.where(last[:, None] >= 0, hidden[:, last.clamp(min=0)], 0.0)


def filled(own: Own, hidden: Tensor, value: Tensor) -> Tensor:
    """What is mixed is written position by position, and changed in place, itself and by a view."""
    T, rows, gate = own.linear(hidden), torch.empty_like(hidden), own.gate(hidden).sigmoid()
    for at in range(hidden.shape[1]):
        rows[:, at] = (T[:, :, at, None] @ heads(value)).flatten(1)
    rows += gate
    rows[:, :].mul_(gate)
    return rows.tanh()


def changed_later(name: str) -> Callable[[Own, Tensor, Tensor], Tensor]:
    """Attention, of which one tensor is changed in place once it was used."""

    def mixed(own: Own, hidden: Tensor, value: Tensor) -> Tensor:
        query, key, values = (heads(part).clone() for part in (own.query(hidden), own.key(hidden), value))
        weights = (query @ key.mT / 2).masked_fill(lag(hidden) < 0, -torch.inf).softmax(-1)
        parts = {"query": query, "map": weights, "values": values, "result": weights @ values}
        parts[name].mul_(own.choice(hidden).sigmoid()[:, None])
        return merged(parts["result"])

    return mixed


def beside_the_one_before(own: Own, hidden: Tensor, value: Tensor) -> Tensor:
    return F.linear(torch.cat([delayed(value), value], -1), torch.cat([own.gate.weight, own.key.weight], 1))


def two_branches(own: Own, hidden: Tensor, value: Tensor) -> Tensor:
    return own.attend(hidden, value) + value.cumsum(1)


def sums_of_logarithms(own: Own, hidden: Tensor, value: Tensor) -> Tensor:
    sums = F.logsigmoid(own.fade(hidden)).cumsum(1)
    return (value * (-sums).exp()).cumsum(1) * sums.exp()


def averaged(hidden: Tensor) -> Tensor:
    return hidden.cumsum(1) / torch.arange(1, hidden.shape[1] + 1)[:, None]


def exponentials(own: Own, hidden: Tensor, value: Tensor) -> Tensor:
    query, key, value = parts(own, hidden, value)
    weights = (query @ key.mT / 2).exp().tril()
    return merged(weights @ value / weights.sum(-1, keepdim=True))


def with_a_sink(own: Own, hidden: Tensor, value: Tensor) -> Tensor:
    query, key, value = parts(own, hidden, value)
    scores = (query @ key.mT / 2).masked_fill(lag(hidden) < 0, -torch.inf)
    sink = own.choice.weight[0, :HEADS, None, None].expand(*scores.shape[:3], 1)
    return merged(torch.cat([sink, scores], -1).softmax(-1)[..., 1:] @ value)


def cut_convolution(own: Own, hidden: Tensor, value: Tensor) -> Tensor:
    return F.conv1d(value.mT, own.short.weight, padding=2, groups=WIDTH)[..., : hidden.shape[1]].mT


def divided(own: Own, hidden: Tensor, value: Tensor) -> Tensor:
    """Sums of positive features, by products and cumulative sums, over what they are divided by."""
    query, key, value = parts(own, hidden, value)
    query, key = F.elu(query) + 1, F.elu(key) + 1
    states = torch.cumsum(key.unsqueeze(-1) * value.unsqueeze(-2), 2)
    return merged((query.unsqueeze(-2) @ states).squeeze(-2) / (query * key.cumsum(2)).sum(-1, keepdim=True))


def keys_first(own: Own, hidden: Tensor, _: Tensor) -> Tensor:
    """Keys that are in the normaliser are weights, though they are computed before the values."""
    key, value = own.key(hidden).exp(), own.value(hidden)
    return (key * value).cumsum(1) / key.cumsum(1)


def by_keys(own: Own, hidden: Tensor) -> Tensor:
    weights = own.key(hidden).exp().mT[:, :, None].expand(-1, -1, hidden.shape[1], -1).tril()
    return weights / weights.sum(-1, keepdim=True)


def chunked(own: Own, hidden: Tensor, value: Tensor) -> Tensor:
    state, mixed = hidden.new_zeros(len(hidden), HEADS, WIDTH // HEADS, WIDTH // HEADS), []
    for q, k, v in zip(*(part.split(8, 2) for part in parts(own, hidden, value)), strict=True):
        mixed.append((q @ k.mT).tril() @ v + q @ state)
        state = state + k.mT @ v
    return merged(torch.cat(mixed, 2))


def heads_before_texts(own: Own, hidden: Tensor, value: Tensor) -> Tensor:
    return (own.linear(hidden).transpose(0, 1) @ heads(value).transpose(0, 1)).permute(1, 2, 0, 3).flatten(2)


def masked(own: Own, hidden: Tensor, seen: Tensor) -> Tensor:
    scores = heads(own.query(hidden)) @ heads(own.key(hidden)).mT / 2
    return scores.masked_fill(~seen, -torch.inf).softmax(-1)


def band(hidden: Tensor, width: int = 4) -> Tensor:
    return (lag(hidden) >= 0) & (lag(hidden) < width)


def far_column(hidden: Tensor) -> Tensor:
    """The last row of one head sees but one key, far back."""
    seen = (lag(hidden) >= 0).repeat(HEADS, 1, 1)
    seen[1, -1] = torch.arange(hidden.shape[1]) == 2
    return seen


def by_distance(own: Own, hidden: Tensor) -> Tensor:
    scores = heads(own.query(hidden)) @ heads(own.key(hidden)).mT - 0.5 * lag(hidden).clamp(min=0).to(hidden).sqrt()
    return scores.masked_fill(lag(hidden) < 0, -torch.inf).softmax(-1)


def sigmoids(own: Own, hidden: Tensor, bias: float = 0.0) -> Tensor:
    scores = heads(own.query(hidden)) @ heads(own.key(hidden)).mT - bias * lag(hidden)
    return scores.sigmoid().tril()


def reading(own: Own, hidden: Tensor, value: Tensor | None = None) -> Tensor:
    """Maps that depend on the values that they mix."""
    return sigmoids(own, hidden) * heads(own.value(hidden) if value is None else value).mean(-1).sigmoid()[:, :, None]


def outer_products(own: Own, hidden: Tensor, value: Tensor) -> Tensor:
    """Linear attention by sums of outer products, its query, key and value cut from a tensor."""
    parts = torch.cat([own.query(hidden), own.key(hidden), value], -1).chunk(3, -1)
    query, key, value = (heads(part)[..., None] for part in parts)
    return merged((query * (key * value.mT).cumsum(2)).sum(-2))


def halved(own: Own, hidden: Tensor, value: Tensor) -> Tensor:
    """A running sum that is halved at positions which the text's numbers choose."""
    state, rows = torch.zeros_like(value[:, 0]), []
    for at, is_halved in enumerate(own.choice(hidden)[0, :, 0] > 0):
        if is_halved:
            state = state * 0.5
        state = state * 0.9 + value[:, at]
        rows.append(state)
    return torch.stack(rows, 1)


def far(hidden: Tensor) -> Tensor:
    return powers(hidden, 0.9)


def near(hidden: Tensor) -> Tensor:
    return powers(hidden, 0.5)


def slow(_: Own, hidden: Tensor) -> Tensor:
    return far(hidden)[None, None]


def in_order(order: tuple[int, ...], own: Own, hidden: Tensor) -> list[Tensor]:
    """Values, a gate and another stream, computed in an order of lines."""
    made = {index: (own.value, own.gate, own.query)[index](hidden) for index in order}
    return [made[index] for index in range(3)]


def behind_registers(own: Own, hidden: Tensor) -> Tensor:
    return torch.cat([own.gate.weight[:2].expand(len(hidden), -1, -1), hidden], 1)


def after_registers(own: Own, hidden: Tensor, _: Tensor) -> Tensor:
    """Two registers stand before the text and are cut away."""
    longer = behind_registers(own, hidden)
    return own.attend(longer, own.value(longer))[:, 2:]


def beside_registers(own: Own, hidden: Tensor) -> Tensor:
    return own.maps(behind_registers(own, hidden))[..., 2:, 2:]


def by_cell(read: Callable[[Own, Tensor], Tensor]) -> Callable[[Own, Tensor, Tensor], Tensor]:
    """A gated sum whose parts are called token by token."""

    def mixed(own: Own, hidden: Tensor, _: Tensor) -> Tensor:
        state, rows = torch.zeros_like(hidden[:, 0]), []
        for token in hidden.unbind(1):
            state = own.fade(token).sigmoid() * state + own.value(token)
            rows.append(read(own, state))
        return torch.stack(rows, 1)

    return mixed


def added_at_places(own: Own, hidden: Tensor, value: Tensor) -> Tensor:
    """Values of two tokens and of one token before."""
    length = hidden.shape[1]
    mixed = torch.zeros_like(value).index_add(1, torch.arange(2, length), value[:, : length - 2])
    places = torch.arange(1, length)[None, :, None].expand(len(value), -1, WIDTH)
    return mixed.scatter_add(1, places, value[:, : length - 1])


def scores_of(own: Own, hidden: Tensor) -> Tensor:
    return (own.query(hidden) @ own.key(hidden).mT).masked_fill(lag(hidden) < 0, -torch.inf)


def at_places(own: Own, hidden: Tensor, value: Tensor) -> Tensor:
    """Four places of the largest scores: of equal ones, those that torch takes."""
    scores = scores_of(own, hidden)
    places = scores.topk(4, -1).indices
    return torch.full_like(scores, -torch.inf).scatter(-1, places, scores.gather(-1, places)).softmax(-1) @ value


def largest_of_a_window(own: Own, hidden: Tensor, value: Tensor) -> Tensor:
    scores = scores_of(own, hidden).masked_fill(~band(hidden, 5), -torch.inf)
    return scores.masked_fill(scores < scores.topk(3, -1).values[..., -1:], -torch.inf).softmax(-1) @ value


def gate_first(own: Own, hidden: Tensor, _: Tensor) -> Tensor:
    """A gate is computed before values that are mixed farther than the product of both."""
    gate, value = own.query(hidden).sigmoid(), own.value(hidden)
    return own.convolved(gate * F.silu(value + delayed(value, 5)))


def spectral(own: Own, hidden: Tensor) -> Tensor:
    return F.silu(own.by_spectra(own.value(hidden)))


def spectral_behind_a_gate(own: Own, hidden: Tensor, _: Tensor) -> Tensor:
    gate = own.query(hidden).sigmoid()
    return own.scan(hidden, gate * spectral(own, hidden))


def shared_head(own: Own, hidden: Tensor, _: Tensor) -> Tensor:
    """Two heads read the gated values of one, a scan of more channels stands beside, and both are convolved."""
    gated = own.key(hidden)[..., :1].sigmoid() * F.linear(hidden, own.value.weight[: WIDTH // 2])
    shared = gated[:, :, None].expand(-1, -1, 2, -1).reshape(*hidden.shape)
    attended = scores_of(own, hidden).softmax(-1) @ shared
    return own.convolved(attended + own.scan(hidden, own.query(hidden)))


def hyena(order: tuple[int, ...]) -> Row:
    """Of the two streams that are multiplied first, the one that is computed first is T's; the other belongs to T."""

    def mixed(own: Own, hidden: Tensor, _: Tensor) -> Tensor:
        values, gate, other = in_order(order, own, hidden)
        return far(hidden) @ ((near(hidden) @ (values * other)) * gate)

    def definition(own: Own, hidden: Tensor) -> Tensor:
        values, gate, other = in_order(order, own, hidden)
        factor = other if order.index(0) < order.index(2) else values
        return far(hidden) @ diagonal(gate) @ near(hidden) @ diagonal(factor)

    return Row(f"Hyena of order three, computed {order}", mixed, definition)


def causal_mask(hidden: Tensor) -> Tensor:
    return nn.Transformer.generate_square_subsequent_mask(hidden.shape[1]).to(hidden)


def by_torch(own: Own, hidden: Tensor, _: Tensor) -> Tensor:
    """What a layer of torch's own returns; a decoder reads five more positions beside."""
    mask = causal_mask(hidden)
    if isinstance(own.inner, nn.TransformerDecoderLayer):
        return own.inner(hidden, torch.ones_like(hidden[:, :5]), tgt_mask=mask)
    if isinstance(own.inner, nn.MultiheadAttention):
        return own.inner(hidden, hidden, hidden, attn_mask=mask, need_weights=False)[0]
    return own.inner(hidden, mask, is_causal=True)


def maps_by_torch(own: Own, hidden: Tensor) -> Tensor:
    """The maps that its attention returns, without that of a learned key."""
    attention = getattr(own.inner, "self_attn", own.inner)
    hidden = own.inner.norm1(hidden) if getattr(own.inner, "norm_first", False) else hidden
    returned = attention(hidden, hidden, hidden, attn_mask=causal_mask(hidden), average_attn_weights=False)
    return returned[1][..., : hidden.shape[1]]


class Row(NamedTuple):
    """A layer by how it mixes its values."""

    name: str
    mixed: Callable[..., Any]
    T: Callable[[Any, Tensor], Tensor] | None = None  # of the part that is measured; None where that is all
    around: Around = Around(0, 0, 0)  # how far positions are mixed around T, which is told
    codes: frozenset[Code] = frozenset()  # those that say what else T is without, or what it contains
    inner: Callable[[], nn.Module] | None = None  # makes a module inside of it
    text: Tensor = TEXT
    rounding: float = 1e-9

    def definition(self, own: Own, hidden: Tensor) -> Tensor:
        return by_impulses(self.mixed, own, hidden) if self.T is None else self.T(own, hidden)


CONTAINS, FED, APART = frozenset({Code.CONTAINS}), frozenset({Code.MIXED_BEFORE}), frozenset({Code.PART})
BEFORE, BEHIND, BESIDE = Around(2, 0, 0), Around(0, 2, 0), Around(0, 0, 2)
ALL_BEFORE, ALL_BESIDE = Around(LENGTH - 1, 0, 0), Around(0, 0, LENGTH - 1)
MIXINGS = {
    "a loop": Own.scan,
    "linear attention": lambda own, h, v: applied(own.linear(h), v),
    "fused attention": Own.fused,
}
OPTIONS = {"dropout": 0.0, "batch_first": True}
BY_TORCH = {
    "attention": lambda: nn.MultiheadAttention(WIDTH, HEADS, **OPTIONS),
    "a learned key": lambda: nn.MultiheadAttention(WIDTH, HEADS, add_bias_kv=True, **OPTIONS),
    "an encoder": lambda: nn.TransformerEncoderLayer(WIDTH, HEADS, WIDTH, **OPTIONS),
    "a norm before": lambda: nn.TransformerEncoderLayer(WIDTH, HEADS, WIDTH, norm_first=True, **OPTIONS),
    "a decoder": lambda: nn.TransformerDecoderLayer(WIDTH, HEADS, WIDTH, **OPTIONS),
}
TABLE = [
    *(Row(f"{name} of torch", by_torch, maps_by_torch, inner=inner) for name, inner in BY_TORCH.items()),
    Row("a running sum", lambda own, h, v: v.cumsum(1), ones),
    Row("a loop that forgets", Own.scan, Own.fading),
    Row("gates nearly closed", lambda own, h, v: scanned((own.fade(h) - 4).sigmoid(), v)),
    Row("gates nearly open", lambda own, h, v: scanned((own.fade(h) + 12).sigmoid(), v)),
    Row("gates far apart", lambda own, h, v: scanned((40 * own.fade(h)).sigmoid(), v)),
    Row("sums of logarithms", sums_of_logarithms, Own.fading),
    Row("attention", Own.attend, maps),
    Row("fused attention", Own.fused, maps),
    Row("linear attention", MIXINGS["linear attention"], Own.linear),
    Row("heads before texts", heads_before_texts, Own.linear),
    Row("a branch on numbers", halved),
    # Other spellings.
    Row("exponentials over their sum", exponentials, maps),
    Row("a map that is normalised twice", lambda own, h, v: applied(F.normalize(own.maps(h).tril(), 1, -1), v), maps),
    Row("flex_attention", lambda own, h, v: merged(flexible(own, h, v)), maps),
    Row("flex_attention with its sums", lambda own, h, v: merged(flexible(own, h, v, return_lse=True)[0]), maps),
    Row("registers before the text", after_registers, beside_registers),
    Row("a sink", with_a_sink),
    Row("gated maps", lambda own, h, v: applied(own.maps(h) * own.gate(h).mT[:, :HEADS, None].sigmoid(), v)),
    Row("squared rectified scores", lambda own, h, v: applied(own.linear(h).relu().square(), v)),
    Row("linear attention by its sum", divided),
    Row("keys in a normaliser, before the values", keys_first, by_keys),
    Row("linear attention in chunks", chunked, Own.linear),
    Row("a mean", lambda own, h, v: averaged(v)),
    Row("a convolution", lambda own, h, v: own.convolved(v), Own.taps),
    Row("a convolution that is cut", cut_convolution, Own.taps),
    Row("a convolution of what enters", lambda own, h, v: F.gelu(own.convolved(h)), Own.taps),
    Row("a convolution by FFT", lambda own, h, v: filtered(v, 2 * h.shape[1]), slow),
    Row("a token shift", lambda own, h, v: torch.lerp(v, delayed(v), own.gate.bias)),
    Row("values of a learned scale", lambda own, h, v: own.attend(h, own.choice.bias * own.gate.bias.norm() * v)),
    Row("outer products of pieces of a projection", outer_products, Own.linear),
    Row("a learned slope", lambda own, h, v: own.attend(h, v * (own.choice.bias.exp() * v).sigmoid()), maps),
    # Gates, norms and projections behind T do not belong to it.
    Row("a gate behind", lambda own, h, v: own.attend(h, v) * own.gate(h).sigmoid(), maps),
    Row("a norm behind", lambda own, h, v: F.normalize(own.attend(h, v), dim=-1), maps),
    Row("a filled tensor, added to in place and gated by a view", filled, Own.linear),
    *(
        Row(f"attention, its {name} changed later", changed_later(name), maps)
        for name in ("query", "map", "values", "result")
    ),
    # All that mixes the values linearly, channel by channel.
    Row("a map twice", lambda own, h, v: own.attend(h, own.attend(h, v))),
    Row("a convolution behind", lambda own, h, v: own.convolved(own.fused(h, v))),
    Row("a sum behind", lambda own, h, v: own.attend(h, v).cumsum(1)),
    Row("a convolution of values", lambda own, h, v: own.attend(h, own.convolved(v))),
    Row("a convolution module of values", lambda own, h, v: own.fused(h, own.short(v)), codes=CONTAINS),
    Row("a convolution of values beside", lambda own, h, v: own.attend(h, v) + own.convolved(v)),
    Row("a linear branch", lambda own, h, v: own.attend(h, v) + applied(own.linear(h), v)),
    Row("a loop and a convolution", lambda own, h, v: own.scan(h, v) + own.convolved(v)),
    Row("a difference", lambda own, h, v: own.attend(h, v) - 0.5 * applied(own.maps(h, 2.0), v)),
    Row("a delta rule by a kernel", delta_rule, rounding=1e-5),
    Row(
        "a delta rule, taps beside",
        lambda own, h, v: delta_rule(own, h, v) + own.convolved(v),
        codes=CONTAINS,
        rounding=1e-5,
    ),
    # How T comes about is no mixing of values.
    Row("queries of a convolution", lambda own, h, v: applied(own.maps(h, 1.0, own.convolved(own.query(h))), v)),
    Row("weights that read the values", lambda own, h, v: applied(reading(own, h, v), v), reading),
    # What T is without is told.
    Row("shifted inputs", lambda own, h, v: own.attend(shifted(h), v), lambda own, h: own.maps(shifted(h))),
    Row("an activated convolution of values", lambda own, h, v: own.attend(h, F.silu(own.convolved(v))), maps, BEFORE),
    Row("a norm, then taps", lambda own, h, v: own.convolved(F.normalize(own.fused(h, v), dim=-1)), maps, BEHIND),
    Row("a sum behind an activation", lambda own, h, v: F.silu(own.fused(h, v)).cumsum(1), ones, ALL_BEFORE),
    Row("a shift behind a projection", lambda own, h, v: shifted(own.output(own.attend(h, v))), maps, Around(0, 1, 0)),
    Row("a mean beside", lambda own, h, v: own.fused(h, v) + averaged(own.gate(h)), maps, ALL_BESIDE),
    Row("a maximum beside", lambda own, h, v: own.attend(h, v) + v.cummax(1)[0], maps, ALL_BESIDE),
    Row("a small square beside", lambda own, h, v: v.cumsum(1) + 1e-11 * v.cumsum(1).square(), ones, ALL_BESIDE),
    # Gates between mixings belong to T; those that mix positions are told.
    *map(hyena, permutations(range(3))),
    Row("a gate between", lambda own, h, v: far(h) @ (own.gate(h).sigmoid() * (near(h) @ v))),
    Row(
        "H3",
        lambda own, h, v: (far(h) @ (v * (near(h) @ own.key(h)))) * own.query(h),
        lambda own, h: far(h) @ diagonal(own.value(h)) @ near(h),
    ),
    Row("a gate that is mixed as far", lambda own, h, v: (far(h) @ v) * (near(h) @ own.key(h)), slow, ALL_BESIDE),
    # What modules inside mix is in T, or told, and is measured by itself.
    Row("what a module feeds", lambda own, h, v: two_branches(own, h, own.short(v)), codes=CONTAINS),
    Row(
        "what an activated module feeds",
        lambda own, h, v: two_branches(own, h, own.inner(v)),
        lambda own, h: own.maps(h) + ones(own, h),
        codes=FED,
        inner=lambda: nn.Sequential(Short(), nn.SiLU()),
    ),
    Row(
        "queries of a module",
        lambda own, h, v: own.attend(own.inner(h), v),
        lambda own, h: own.maps(own.inner(h)),
        inner=lambda: nn.Sequential(Short(), nn.SiLU()),
    ),
    Row(
        "a convolution module that is cut",
        lambda own, h, v: own.inner(v.mT)[..., : h.shape[1]].mT,
        inner=lambda: nn.Conv1d(WIDTH, WIDTH, 4, groups=WIDTH, padding=3),
    ),
    Row(
        "a recurrent module beside",
        lambda own, h, v: own.attend(h, v) + own.inner(h)[0],
        maps,
        codes=APART,
        inner=lambda: nn.LSTM(WIDTH, WIDTH, batch_first=True),
    ),
    Row("a cell that is called token by token", by_cell(lambda own, state: state), Own.fading),
    Row("a cell that projects what it reads", by_cell(lambda own, state: own.gate(state).tanh()), Own.fading),
    # Values, weights and gates, in whatever order and way they are computed.
    Row(
        "values that gate their own scan",
        lambda own, h, v: own.scan(h, shifted(v)) * shifted(v),
        lambda own, h: own.fading(h) @ (delay(h, 0) + 0.5 * delay(h)),
        Around(0, 0, 1),
    ),
    Row(
        "a factor that is linear in the values",
        lambda own, h, v: far(h) @ (own.gate(v) * v),
        lambda own, h: far(h) @ diagonal(own.gate(own.value(h))),
    ),
    Row("values made by a norm", lambda own, h, v: far(h) @ F.normalize(v, dim=-1), slow),
    Row("decays of the shape of values", lambda own, h, v: scanned(torch.full_like(v, 0.9), v)),
    Row("one step late", lambda own, h, v: delayed(own.scan(h, v))),
    Row("sums at places", added_at_places),
    Row("places of the largest scores, tied", at_places, text=torch.zeros_like(TEXT)),
    *(
        Row(f"another rule for {len(text)} texts", lambda own, h, v: own.attend(h / len(h), v), text=text)
        for text in (TEXT[:1], TEXT)
    ),
    # The part that T is of, where more is mixed around it.
    Row(
        "sums of logarithms, a convolution beside",
        lambda own, h, v: sums_of_logarithms(own, h, v) + own.convolved(own.query(h)),
        Own.fading,
        BESIDE,
    ),
    Row("attention, taps beside", lambda own, h, v: exponentials(own, h, v) + own.convolved(own.gate(h)), maps, BESIDE),
    Row(
        "a spectrum of less reach beside",
        lambda own, h, v: own.by_spectra(own.gate(h)) + far(h).triu(-4) @ v,
        lambda own, h: far(h).triu(-4)[None, None],
        ALL_BESIDE,
    ),
    Row("a spectrum behind SiLU", lambda own, h, v: own.by_spectra(F.silu(own.scan(h, v))), Own.fading, BEHIND),
    Row(
        "the largest of a window, a sum beside",
        lambda own, h, v: largest_of_a_window(own, h, v) + own.gate(h).cumsum(1),
        ones,
        Around(0, 0, 4),
    ),
    Row("a gate before mixed values", gate_first, lambda own, h: delay(h, 0) + delay(h, 5), Around(0, 2, 2)),
    Row(
        "a gate before values by spectra",
        spectral_behind_a_gate,
        lambda own, h: own.fading(h) @ diagonal(spectral(own, h)),
        ALL_BEFORE,
    ),
    Row("a head that two read, a scan beside", shared_head, lambda own, h: own.taps(h) @ own.fading(h), ALL_BESIDE),
    # Delays, fixed taps and choices.
    Row("a token 15 before", lambda own, h, v: delayed(v, 15)),
    Row("a gated delay", lambda own, h, v: delayed(v, 3) * v.sigmoid(), lambda own, h: delay(h, 3)),
    Row("a token and the one before", lambda own, h, v: v + delayed(v)),
    Row("fixed taps", lambda own, h, v: v + own.short.weight[:, 0, 0] * (delayed(v, 3) - v)),
    Row("a choice of delays", lambda own, h, v: v + (own.choice(h) > 0) * delayed(v, 3)),
    Row("the first token", lambda own, h, v: v + v[:, :1]),
    Row("each token beside the one before", beside_the_one_before, lambda own, h: delay(h)),
    # Mixing at the borders of blocks.
    Row("borders of blocks", lambda own, h, v: bridged(v)),
    *(Row(f"borders before {name}", lambda own, h, v, m=m: m(own, h, bridged(v))) for name, m in MIXINGS.items()),
    *(Row(f"borders behind {name}", lambda own, h, v, m=m: bridged(m(own, h, v))) for name, m in MIXINGS.items()),
    *(Row(f"borders and {name}", lambda own, h, v, m=m: m(own, h, v) + carried(v)) for name, m in MIXINGS.items()),
    *(
        Row(f"borders beside {name}", lambda own, h, v, m=m: m(own, h, v) + carried(h), T, Around(0, 0, 8))
        for (name, m), T in zip(MIXINGS.items(), (Own.fading, Own.linear, maps), strict=True)
    ),
    # Masks and biases of attention.
    Row("a window", lambda own, h, v: applied(masked(own, h, band(h)), v)),
    Row("one row of a single column", lambda own, h, v: applied(masked(own, h, far_column(h)), v)),
    Row("a bias by distance", lambda own, h, v: applied(by_distance(own, h), v)),
    Row("sigmoids with a bias", lambda own, h, v: applied(sigmoids(own, h, 0.25), v)),
]
# One repeated token: all values are the same, so that every T whose rows have the same sums gives the same output.
REPEATED = (
    "a window",
    "a bias by distance",
    "sigmoids with a bias",
    "weights that read the values",
    "a loop that forgets",
)
TABLE += [
    row._replace(name=f"{row.name}, one token", text=torch.zeros_like(TEXT)) for row in TABLE if row.name in REPEATED
]


def off(item: Any, T: Tensor) -> float:
    """How far T of each channel is below the diagonal, relative to its largest value."""
    found, expected = wide(item.operator.dense()), wide(T.detach().expand(len(item.operator.dense()), -1, -1, -1))
    return float((found - expected).tril(-1).abs().max() / expected.tril(-1).abs().max())


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.filterwarnings("ignore:.*return_lse")
@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.name)
def test_t_is_that_of_its_formula_and_what_it_is_without_is_told(row: Row) -> None:
    model = model_of(row.mixed, row.inner).train()
    weights, random = {name: weight.clone() for name, weight in model.state_dict().items()}, torch.get_rng_state()
    capture, around = ss.capture(model, row.text), mixing_around(row.around)
    items = {item.name: item for item in capture}
    item = items.get("1") or next(iter(items.values()))  # a layer that only hands on is no mixer
    with torch.no_grad():
        assert off(item, row.definition(model[1], model[0](row.text))) < row.rounding
    assert {note.code for note in item.notes} & TOLD == row.codes | ({Code.PART} if around else set())
    assert around is None or around in item.notes
    assert item.operator_difference < 1e-9
    assert capture.skipped == {}
    # The model is as before.
    assert all(torch.equal(weight, weights[name]) for name, weight in model.state_dict().items())
    assert all(part.training and not part._forward_hooks and not part._forward_pre_hooks for part in model.modules())
    assert torch.equal(torch.get_rng_state(), random)


def decided_in_numpy(own: Own, hidden: Tensor, value: Tensor) -> Tensor:
    gate = in_numpy(own, hidden, own.query(hidden)).sigmoid()
    return value if hidden.sum() > 1e9 else value.cumsum(1) + gate


def in_numpy(own: Own, hidden: Tensor, value: Tensor) -> Tensor:
    return torch.from_numpy(value.detach().numpy().astype("float32").cumsum(1)).to(hidden)


def seen_by_score(own: Own, hidden: Tensor, value: Tensor) -> Tensor:
    """Every query sees itself and the earlier ones of the 6 tokens of highest score."""
    best = own.choice(hidden)[..., 0].topk(6, -1).indices
    seen = torch.zeros(hidden.shape[:2], dtype=torch.bool).scatter(1, best, True)[:, None, None]
    return applied(masked(own, hidden, (seen | (lag(hidden) == 0)) & (lag(hidden) >= 0)), value)


def one_later_weight(own: Own, hidden: Tensor, value: Tensor) -> Tensor:
    later = (torch.arange(hidden.shape[1]) == 9) & (lag(hidden) == -1)
    return applied(masked(own, hidden, (lag(hidden) >= 0) | later), value)


def filtered(values: Tensor, size: int) -> Tensor:
    kernel = 0.9 ** torch.arange(values.shape[1], dtype=values.dtype)[:, None]
    spectrum = torch.fft.rfft(values, n=size, dim=1) * torch.fft.rfft(kernel, n=size, dim=0)
    return torch.fft.irfft(spectrum, n=size, dim=1)[:, : values.shape[1]]


def leaked(hidden: Tensor) -> Tensor:
    """The first tokens enter all; as a factor, since what is added to all keys leaves a softmax as it is."""
    return hidden * (1 + hidden[:, :8].mean(1, keepdim=True))


@torch.library.custom_op("tests::halve", mutates_args=("tensor",))
def halve(tensor: Tensor) -> None:
    tensor.mul_(0.5)


def halved_by_a_write(own: Own, hidden: Tensor, value: Tensor) -> Tensor:
    value = value.clone()
    halve(value)
    return value.cumsum(1)


def reading_the_next(place: int) -> Callable[[Own, Tensor, Tensor], Tensor]:
    def mixed(own: Own, hidden: Tensor, value: Tensor) -> Tensor:
        later = hidden.index_add(1, torch.tensor([place]), hidden[:, [place + 1]])
        return own.attend(hidden, value) * own.gate(later).sigmoid()

    return mixed


AHEAD, NO_CODE = {Code.LOOKS_AHEAD, Code.LATER_POSITIONS}, {Code.NOT_MEASURED}
OUTSIDE, UNKNOWN = {Code.OUTSIDE_TORCH}, {Code.UNKNOWN_OPERATION}
REFUSED = {
    "a reversed sum": (lambda own, h, v: v.flip(1).cumsum(1).flip(1), AHEAD),
    "hardly a reversed sum": (lambda own, h, v: v.cumsum(1) + 1e-8 * v.flip(1).cumsum(1).flip(1), AHEAD),
    "a reversed sum beside attention": (lambda own, h, v: own.attend(h, v) + v.flip(1).cumsum(1).flip(1), AHEAD),
    "a mask that is missing": (lambda own, h, v: (own.query(h) @ own.key(h).mT) @ v, AHEAD),
    "a mean of all positions": (lambda own, h, v: (v - v.mean(1, keepdim=True)).cumsum(1), AHEAD),
    "an FFT without padding": (lambda own, h, v: filtered(v, h.shape[1]), AHEAD),
    "padding on both sides": (lambda own, h, v: F.conv1d(v.mT, own.short.weight, padding=1, groups=WIDTH).mT, AHEAD),
    "keys that later tokens choose": (seen_by_score, AHEAD),
    "one weight on a later position": (one_later_weight, AHEAD),
    "first tokens in queries": (lambda own, h, v: applied(own.maps(h, 1.0, own.query(leaked(h))), v), AHEAD),
    "first tokens in keys": (lambda own, h, v: (own.query(h) @ own.key(leaked(h)).mT).tril() @ v, AHEAD),
    "first tokens in decays": (lambda own, h, v: own.scan(leaked(h), v), AHEAD),
    "first tokens in a norm": (lambda own, h, v: own.attend(h, v) / leaked(h).norm(dim=-1, keepdim=True), AHEAD),
    **{f"token {place} reads the next": (reading_the_next(place), AHEAD) for place in (0, 1, 13, LENGTH - 2)},
    "dropout that is always on": (lambda own, h, v: F.dropout(v.cumsum(1)), NO_CODE),
    "fewer positions": (lambda own, h, v: v.cumsum(1)[:, 1:], NO_CODE),
    "numbers that are not finite": (lambda own, h, v: v.cumsum(1) / (h - h), NO_CODE),
    "what torch cannot derive": (lambda own, h, v: torch.mul(v.cummax(1)[0], 2, out=torch.empty_like(v)), NO_CODE),
    "a nested tensor": (
        lambda own, h, v: torch.nested.nested_tensor(list(v), layout=torch.jagged).cos().values().view_as(v),
        UNKNOWN,
    ),
    "a sparse product": (
        lambda own, h, v: torch.sparse.mm(torch.eye(LENGTH).to(v).to_sparse(), v[0]).expand_as(v),
        UNKNOWN,
    ),
    "an operation of one's own that writes": (halved_by_a_write, UNKNOWN),
    "another stride": (lambda own, h, v: v.as_strided(v.shape, (*v.stride()[:1], 1, LENGTH)), UNKNOWN),
    "numpy": (in_numpy, OUTSIDE),
    "numpy beside what the text decides": (decided_in_numpy, OUTSIDE),
    "a number of Python": (lambda own, h, v: v.cumsum(1) * h.mean().item(), OUTSIDE),
    "a list of Python": (lambda own, h, v: v.cumsum(1) * h.mean().tolist(), OUTSIDE),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_layer_without_a_t_is_refused_by_the_code_of_its_cause(name: str) -> None:
    mixed, codes = REFUSED[name]
    model = model_of(mixed)
    with pytest.raises(ModelError) as refused:
        list(ss.capture(model, TEXT))
    reasons = refused.value.skipped.values() if isinstance(refused.value, NothingMeasuredError) else ()
    assert {note.code for note in (Note.of(refused.value), *reasons)} <= codes
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in model.modules())


def in_blocks(size: int) -> Callable[..., Tensor]:
    return lambda own, hidden, value: torch.cat([part.cummax(1)[0] for part in value.split(size, 1)], 1)


DERIVED = {
    "a maximum": lambda own, h, v: v.cummax(1)[0],
    "channels mixed": lambda own, h, v: F.conv1d(F.pad(v.mT, (2, 0)), own.short.weight.expand(-1, WIDTH, -1)).mT,
    **{f"maxima in blocks of {size}": in_blocks(size) for size in (2, 5, 8, 12)},
}


@pytest.mark.parametrize("name", DERIVED)
def test_a_layer_without_a_t_of_single_channels_is_measured_by_its_derivative(name: str) -> None:
    model = model_of(DERIVED[name])
    (item,) = ss.capture(model, TEXT[:1])
    hidden = model[0](TEXT[:1]).detach()
    jacobian = torch.autograd.functional.jacobian(model[1], hidden)[0, :, :, 0]
    torch.testing.assert_close(item.operator.dense().flatten(), jacobian.flatten(), rtol=0, atol=1e-9)
    assert (item.kind, item.units) == ("derivative", 1)


@torch.no_grad()
def test_other_futures_are_asked_of_the_recorded_operations() -> None:
    model, runs = model_of(at_places), list[int]()
    model[1].register_forward_hook(lambda *_: runs.append(1))
    trace = Trace(ModuleCall(model[1], model[1], (model[0](TEXT),), {}, LENGTH, len(TEXT)))
    assert trace.looks_ahead() is None
    assert trace.mixing() is not None
    assert len(runs) == 2
