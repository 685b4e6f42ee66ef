"""T holds two mixings with a gate between them, in whatever order a layer computes what they multiply."""

from itertools import permutations

import numpy as np
import pytest
import torch
from torch import nn

import statesize as ss
from campaigns.layers.campaign import Draw, difference, outcome
from campaigns.layers.gated import GatedBlock
from statesize.codes import Code, joined

WIDTH, LENGTH = 6, 23
IDS = torch.arange(LENGTH)[None]
LAG = torch.arange(LENGTH)[:, None] - torch.arange(LENGTH)
FAST, SLOW = ((rate ** LAG.clamp(min=0).double()).tril() for rate in (0.5, 0.9))


class Streams(nn.Module):
    """Streams of one input by projections that run in a given order of lines, perhaps behind a short convolution."""

    def __init__(self, order, taps=1):
        super().__init__()
        self.order, self.taps = order, nn.Parameter(torch.rand(taps, 1))
        self.projections, self.output = (
            nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(3)),
            nn.Linear(WIDTH, WIDTH),
        )

    def streams(self, hidden):
        padded = nn.functional.pad(hidden, (0, 0, len(self.taps) - 1, 0))
        if len(self.taps) > 1:
            hidden = sum(padded[:, tap : tap + hidden.shape[1]] * weight for tap, weight in enumerate(self.taps))
        made = {index: self.projections[index](hidden) for index in self.order}
        return [made[index] for index in range(3)]

    def forward(self, hidden):
        return self.output(self.mixed(*self.streams(hidden)))

    def definition(self, hidden):
        first, second, third = (stream.mT for stream in self.streams(hidden))
        return self.t_of(first, second, third)


class GateBetween(Streams):
    def mixed(self, values, gate, _):
        return SLOW.to(values) @ ((FAST.to(values) @ values) * gate.sigmoid())

    def t_of(self, values, gate, _):
        return SLOW @ torch.diag_embed(gate.sigmoid()) @ FAST


class HyenaOfOrderThree(Streams):
    """Of the two streams that are multiplied first, the one that is computed first is T's; the other belongs to T."""

    def mixed(self, values, gate, other):
        return SLOW.to(values) @ ((FAST.to(values) @ (values * other)) * gate)

    def t_of(self, values, gate, other):
        later = other if self.order.index(0) < self.order.index(2) else values
        return SLOW @ torch.diag_embed(gate) @ FAST @ torch.diag_embed(later)


class H3(Streams):
    """The keys are mixed first, and multiply the values."""

    def mixed(self, values, keys, query):
        return (SLOW.to(values) @ (values * (FAST.to(values) @ keys))) * query

    def t_of(self, values, keys, query):
        return SLOW @ torch.diag_embed(values) @ FAST


class GateBehindAll(GateBetween):
    """The gate is computed where it is used, behind the first mixing."""

    def forward(self, hidden):
        values = FAST.to(hidden) @ self.projections[0](hidden)
        values = values * self.projections[1](hidden).sigmoid()
        return self.output(SLOW.to(hidden) @ values)


class GatedInput(Streams):
    """What is mixed is the input itself, which makes its gate too, as in a layer of RG-LRU: the gate belongs to T."""

    def streams(self, hidden):
        _, gate, other = super().streams(hidden)
        return hidden, gate, other

    def mixed(self, values, gate, other):
        return SLOW.to(values) @ (values * (gate.sigmoid() * (1 + other.square()).sqrt()))

    def t_of(self, values, gate, other):
        return SLOW @ torch.diag_embed(gate.sigmoid() * (1 + other.square()).sqrt())


class BySums(Streams):
    """A gated recurrence by sums of logarithms: both factors are mixed to the end of the text, which cancels."""

    def mixed(self, values, gate, _):
        sums = nn.functional.logsigmoid(gate).cumsum(1)
        return (values * (-sums).exp()).cumsum(1) * sums.exp()

    def t_of(self, values, gate, _):
        sums = nn.functional.logsigmoid(gate).cumsum(-1)
        return (sums[..., None] - sums[..., None, :]).masked_fill(LAG < 0, -torch.inf).exp()


class OfThree(Streams):
    """A recurrence of the product of three streams: its values are the one computed first, and the others are of T."""

    def mixed(self, first, second, third):
        return SLOW.to(first) @ (first * second * third)

    def t_of(self, *streams):
        _, second, third = self.order
        return SLOW @ torch.diag_embed(streams[second] * streams[third])


class ShortGate(Streams):
    """A convolution, weighed by one that reaches less far, which is told as beside T."""

    def mixed(self, values, gate, _):
        return (SLOW * (LAG < 8)).to(values) @ values * ((FAST * (LAG < 6)).to(values) @ gate)

    def t_of(self, values, gate, _):
        return (SLOW * (LAG < 8)).expand(1, 1, -1, -1)


class Activated(Streams):
    """What lies between the mixings is not linear: no T holds both."""

    def mixed(self, values, gate, _):
        return SLOW.to(values) @ (nn.functional.silu(FAST.to(values) @ values) * gate)


class AttentionOfMixed(Streams):
    """Values that are mixed to the end of the text and normalised before attention."""

    def mixed(self, values, query, key):
        hidden_from = torch.ones(len(LAG), len(LAG), dtype=torch.bool).triu(1)
        maps = (query @ key.mT).masked_fill(hidden_from, -torch.inf).softmax(-1)
        return maps @ nn.functional.rms_norm(SLOW.to(values) @ values, (WIDTH,))


class GateBehind(Streams):
    """A short convolution, weighed by what is mixed to the end of the text."""

    def mixed(self, values, gate, _):
        return ((SLOW * (LAG < 3)).to(values) @ values) * (FAST.to(values) @ gate).sigmoid()


class Bilinear(Streams):
    """Each stream is mixed, and weighs the other."""

    def mixed(self, values, keys, _):
        return (SLOW.to(values) @ values) * (FAST.to(values) @ keys)


def model_of(layer):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Embedding(LENGTH, WIDTH), layer())


@pytest.mark.parametrize("taps", [1, 3])
@pytest.mark.parametrize("order", list(permutations(range(3))), ids=str)
@pytest.mark.parametrize("layer", [GateBetween, HyenaOfOrderThree, H3, BySums, OfThree])
def test_t_holds_all_mixings(layer, order, taps):
    model = model_of(lambda: layer(order, taps))
    (found,) = ss.capture(model, IDS)
    with torch.no_grad():
        expected = model.double()[1].definition(model[0](IDS))
    torch.testing.assert_close(found.operator.dense(), expected, rtol=0, atol=1e-12)
    assert ("T is without a mixing of 3 positions before it" in joined(found.notes)) == (taps > 1)


@pytest.mark.parametrize("layer", [GateBehindAll, GatedInput, ShortGate])
def test_a_gate_that_is_computed_last(layer):
    model = model_of(lambda: layer(range(3)))
    (found,) = ss.capture(model, IDS)
    with torch.no_grad():
        expected = model.double()[1].definition(model[0](IDS))
    torch.testing.assert_close(found.operator.dense(), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("order", list(permutations(range(2))), ids=str)
@pytest.mark.parametrize("layer", [GateBehind, Bilinear])
def test_a_gate_that_mixes_positions_is_told_as_beside_t(layer, order):
    (found,) = ss.capture(model_of(lambda: layer((*order, 2))), IDS)
    assert found.kind == layer.__name__
    assert [note.code for note in found.notes].count(Code.PART) == 1


@pytest.mark.parametrize("order", list(permutations(range(2))), ids=str)
@pytest.mark.parametrize("layer", [Activated, AttentionOfMixed])
def test_a_mixing_before_t_that_reaches_as_far_is_told(layer, order):
    (found,) = ss.capture(model_of(lambda: layer((*order, 2))), IDS)
    assert f"T is without a mixing of {LENGTH} positions before it" in joined(found.notes)


BLOCKS = [
    # Strengths by which values are written that a short convolution has mixed, as in gated linear attention.
    {"heads": 2, "convolution": "silu", "write": "inside"},
    {"heads": 2, "convolution": "silu", "write": "first", "decay_of": "values"},
    # All gates are made of the values, as in RG-LRU.
    {"states": 3, "decay_of": "values", "write_of": "values", "write": "first", "output": "values"},
    # A gate behind the recurrence, made of what enters the layer or of what the convolution has mixed.
    {"states": 3, "convolution": "silu", "decay_of": "values", "output": "input"},
    {"states": 3, "convolution": "silu", "decay_of": "values", "output": "values"},
    {"heads": 2, "convolution": "silu", "output": "values"},
    {"heads": 2, "convolution": "silu", "output": "values", "write": "inside"},
    {"convolution": "linear", "write": "first", "write_of": "values", "output": "values"},
    # What the last stage of the scan adds is less than rounding at one position.
    {"scan": "doubling", "bias": 0.0},
]
# The last stage of the scan adds that little at all positions: T ends behind it, and behind what reads the state.
FADING = [
    {"scan": "doubling", "bias": 0.0, "write": "first", "output": "input"},
    {"scan": "doubling", "bias": 0.0, "convolution": "silu", "output": "values"},
]


@pytest.mark.parametrize(
    ("settings", "length"),
    [*((one, length) for one in BLOCKS for length in (33, 48)), *((one, 75) for one in FADING)],
    ids=str,
)
def test_no_gate_stands_for_values_or_lies_in_t(settings, length):
    with torch.random.fork_rng():
        torch.manual_seed(length)
        model = nn.Sequential(nn.Embedding(length, 8), GatedBlock(8, **settings))
    (found,) = ss.capture(model, torch.arange(length)[None])
    own = np.repeat(found.operator.dense()[0].numpy(), found.multiplicity, 0)
    hidden = model[0].weight.detach().double().numpy()
    defined = [np.repeat(T, 8 // len(T), 0) for T in model[1].definition(hidden)]
    assert min(difference(own, T) for T in defined) < 1e-12
    assert found.state_size == model[1].states
    convolved = "convolution" in settings
    assert ("T is without a mixing of 4 positions before it" in joined(found.notes)) == convolved
    # A gate of what the convolution has mixed mixes positions beside T.
    gated = convolved and settings.get("output") == "values"
    assert ("a mixing of 4 positions beside it" in joined(found.notes)) == gated


def test_before_a_mixed_gate_t_ends_behind_the_last_stage():
    # What it adds is 2e-9 of the largest value, and what reads the state comes behind it.
    draw = Draw.of(4, 116)
    assert "'write_of': 'input', 'output': 'values', 'scan': 'doubling', 'bias': 0.0" in draw.about
    assert outcome(draw).problems == ()
