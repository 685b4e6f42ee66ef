"""T of a traced module by hand formulas, what is told around it, and what is refused."""

import numpy as np
import pytest
import torch
from torch import nn

from statesize.adapters.module_call import ModuleCall
from statesize.adapters.trace.channels import Around
from statesize.adapters.trace.trace import NoOperatorError, Trace
from statesize.codes import Code
from statesize.errors import ModelError

LENGTH, WIDTH = 9, 4
LAG = torch.arange(LENGTH)[:, None] - torch.arange(LENGTH)
FADING = (0.8 ** LAG.clamp(min=0).double()).tril()
SHORT = torch.where((LAG >= 0) & (LAG < 3), 0.5 ** LAG.clamp(min=0).double(), 0.0)


class Layer(nn.Module):
    """A layer that mixes by a rule of its own."""

    def __init__(self, rule):
        super().__init__()
        self.rule, self.feed = rule, Feed()
        self.first, self.second, self.third, self.output = (nn.Linear(WIDTH, WIDTH) for _ in range(4))

    def forward(self, hidden):
        return self.output(self.rule(self, hidden))


class Feed(nn.Module):
    def forward(self, hidden):
        return SHORT.to(hidden) @ hidden


def trace(rule, texts=1, held=False):
    torch.manual_seed(0)
    layer = Layer(rule).double()
    hidden = torch.randn(texts, LENGTH, WIDTH).double()
    call = ModuleCall(layer, layer, (hidden,), {}, LENGTH, texts)
    return Trace(call, [layer.feed] if held else []), layer, hidden


def gated_before(layer, hidden):
    value = layer.first(hidden)
    return FADING.to(hidden) @ (value * layer.second(hidden).sigmoid())


def gated_input(layer, hidden):
    gate = layer.second(hidden).sigmoid().mT
    return FADING * gate[:, :, None]


# A rule, T (S, C, L, L) of what enters, and what is mixed around it.
RULES = {
    "an input gate": (gated_before, gated_input, Around(0, 0, 0)),
    "a factor that is linear in the values": (
        lambda layer, hidden: FADING.to(hidden) @ _by_own_projection(layer, layer.first(hidden)),
        lambda layer, hidden: FADING * layer.second(layer.first(hidden)).mT[:, :, None],
        Around(0, 0, 0),
    ),
    "a gate that mixes behind": (
        lambda layer, hidden: (FADING.to(hidden) @ layer.first(hidden)) * (SHORT.to(hidden) @ layer.second(hidden)),
        lambda layer, hidden: FADING,
        Around(0, 0, 2),
    ),
    "other values beside": (
        lambda layer, hidden: (FADING.to(hidden) @ layer.first(hidden)).tanh() + layer.feed(layer.second(hidden)),
        lambda layer, hidden: FADING,
        Around(0, 0, 2),
    ),
    "an activation between": (
        lambda layer, hidden: FADING.to(hidden) @ (SHORT.to(hidden) @ layer.first(hidden)).tanh(),
        lambda layer, hidden: FADING,
        Around(2, 0, 0),
    ),
    "an activation behind": (
        lambda layer, hidden: SHORT.to(hidden) @ (FADING.to(hidden) @ layer.first(hidden)).tanh(),
        lambda layer, hidden: FADING,
        Around(0, 2, 0),
    ),
    "linear convolutions before and behind": (
        lambda layer, hidden: SHORT.to(hidden) @ (FADING.to(hidden) @ (SHORT.to(hidden) @ layer.first(hidden))),
        lambda layer, hidden: SHORT @ FADING @ SHORT,
        Around(0, 0, 0),
    ),
    "values made of a norm": (
        lambda layer, hidden: FADING.to(hidden) @ nn.functional.normalize(layer.first(hidden), dim=-1),
        lambda layer, hidden: FADING,
        Around(0, 0, 0),
    ),
    "sums of logarithms": (
        lambda layer, hidden: _by_sums(layer.first(hidden), layer.second(hidden)),
        lambda layer, hidden: _decays(layer.second(hidden)),
        Around(0, 0, 0),
    ),
    "a prefix that is cut away": (
        lambda layer, hidden: (
            torch.ones(LENGTH + 2, LENGTH + 2).tril().to(hidden)
            @ layer.first(torch.cat([torch.ones_like(hidden[:, :2]), hidden], 1))
        )[:, 2:],
        lambda layer, hidden: torch.ones(LENGTH, LENGTH).tril().double(),
        Around(0, 0, 0),
    ),
    "a division by sums of weights, other values beside": (
        lambda layer, hidden: _divided(layer, hidden) + layer.feed(layer.third(hidden)),
        lambda layer, hidden: _weights(layer, hidden) / _weights(layer, hidden).sum(-1, keepdim=True),
        Around(0, 0, 2),
    ),
    "sums for its weights, a convolution behind": (
        lambda layer, hidden: SHORT.to(hidden) @ _weighed_first(layer, hidden).tanh(),
        lambda layer, hidden: _decays_of_two(layer, hidden),
        Around(0, 2, 0),
    ),
    "a spectrum of less reach beside": (
        lambda layer, hidden: _by_spectrum(layer.first(hidden)) + FADING.triu(-4).to(hidden) @ layer.second(hidden),
        lambda layer, hidden: FADING.triu(-4),
        Around(0, 0, LENGTH - 1),
    ),
    "a cell that is called token by token": (
        lambda layer, hidden: _by_cell(layer, hidden, lambda state: state),
        lambda layer, hidden: _decays(layer.second(hidden)),
        Around(0, 0, 0),
    ),
    "a cell that projects what it reads": (
        lambda layer, hidden: _by_cell(layer, hidden, lambda state: layer.third(state).tanh()),
        lambda layer, hidden: _decays(layer.second(hidden)),
        Around(0, 0, 0),
    ),
    "one step late": (
        lambda layer, hidden: nn.functional.pad(FADING.to(hidden) @ layer.first(hidden), (0, 0, 1, 0))[:, :-1],
        lambda layer, hidden: nn.functional.pad(FADING, (0, 0, 1, 0))[:-1],
        Around(0, 0, 0),
    ),
}  # fmt: skip


def _by_own_projection(layer, value):
    return layer.second(value) * value


def _weights(layer, hidden):
    return (layer.first(hidden) @ layer.second(hidden).mT).exp().tril()[:, None]


def _divided(layer, hidden):
    weights = _weights(layer, hidden)[:, 0]
    return (weights @ layer.second(hidden)) / weights.sum(-1, keepdim=True)


def _by_cell(layer, hidden, read):
    state, rows = torch.zeros_like(hidden[:, 0]), []
    for now in hidden.unbind(1):
        state = layer.second(now).sigmoid() * state + layer.first(now)
        rows.append(read(state))
    return torch.stack(rows, 1)


def _decays_of_two(layer, hidden):
    both = torch.stack([layer.second(hidden), layer.third(hidden)], 1)
    return _decays(both).sum(1)


def _weighed_first(layer, hidden):
    return torch.einsum("bcij,bjc->bic", _decays_of_two(layer, hidden), layer.first(hidden))


def _by_spectrum(values):
    taps = torch.fft.rfft(SHORT[:, 0].to(values), 2 * LENGTH)
    return torch.fft.irfft(torch.fft.rfft(values, 2 * LENGTH, 1) * taps[:, None], 2 * LENGTH, 1)[:, :LENGTH]


def _by_sums(values, gate):
    sums = nn.functional.logsigmoid(gate).cumsum(1)
    return (values * (-sums).exp()).cumsum(1) * sums.exp()


def _decays(gate):
    sums = nn.functional.logsigmoid(gate).mT.cumsum(-1)
    return (sums[..., None] - sums[..., None, :]).masked_fill(LAG < 0, -torch.inf).exp()


@pytest.mark.parametrize("texts", [1, 2])
@pytest.mark.parametrize("name", RULES)
@torch.no_grad()
def test_t_is_that_of_the_rule(name, texts):
    rule, definition, around = RULES[name]
    traced, layer, hidden = trace(rule, texts)
    assert traced.looks_ahead() is None
    mixing = traced.mixing()
    matrix, expected = mixing.matrix, definition(layer, hidden)
    assert mixing.around == around
    assert matrix.shape[:2] == (texts, 1 if expected.ndim == 2 else expected.shape[1])
    torch.testing.assert_close(matrix, expected.expand_as(matrix), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(matrix @ mixing.values + mixing.offset, mixing.mixed, rtol=1e-9, atol=1e-9)
    other = torch.randn_like(mixing.values)
    torch.testing.assert_close(mixing.respond(other), matrix @ other + mixing.offset, rtol=1e-9, atol=1e-9)


@torch.no_grad()
def test_what_a_measured_module_returns_is_given():
    rule = lambda layer, hidden: FADING.to(hidden) @ layer.feed(layer.first(hidden))  # noqa: E731
    whole, part = (trace(rule, held=held)[0].mixing() for held in (False, True))
    torch.testing.assert_close(whole.matrix[0, 0], FADING @ SHORT, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(part.matrix[0, 0], FADING, rtol=1e-9, atol=1e-9)


class Projected(Feed):
    def __init__(self):
        super().__init__()
        self.output = nn.Linear(WIDTH, WIDTH)

    def forward(self, hidden):
        return self.output(super().forward(hidden))


@torch.no_grad()
def test_views_of_what_a_measured_module_returns_are_given():
    def rule(layer, hidden):
        return FADING.to(hidden) @ layer.first(layer.feed(hidden)).tanh()

    torch.manual_seed(0)
    layer = Layer(rule)
    layer.feed = Projected()
    call = ModuleCall(layer.double(), layer, (torch.randn(1, LENGTH, WIDTH).double(),), {}, LENGTH)
    assert Trace(call, [layer.feed]).mixing().around == Around(0, 0, 0)


@torch.no_grad()
def test_a_layer_that_mixes_nothing_has_no_t():
    assert trace(lambda layer, hidden: layer.first(hidden).tanh())[0].mixing() is None


@torch.no_grad()
def test_a_recurrence_that_is_not_linear_has_no_t():
    def rule(layer, hidden):
        state, rows = hidden[:, 0] * 0, []
        for step in range(LENGTH):
            state = torch.tanh(layer.first(state) + hidden[:, step])
            rows.append(state)
        return torch.stack(rows, 1)

    with pytest.raises(NoOperatorError) as raised:
        trace(rule)[0].mixing()
    assert raised.value.args[0].code is Code.NOT_LINEAR


def of_the_highest(layer, hidden):
    scores = (layer.first(hidden) @ layer.second(hidden).mT).masked_fill(LAG < 0, -torch.inf)
    kept = scores >= scores.topk(3, -1).values[..., -1:]
    return scores.masked_fill(~kept, -torch.inf).softmax(-1) @ layer.third(hidden)


@torch.no_grad()
def test_other_futures_are_asked_of_the_recorded_operations():
    torch.manual_seed(0)
    layer, runs = Layer(of_the_highest).double(), []
    layer.register_forward_hook(lambda *_: runs.append(1))
    traced = Trace(ModuleCall(layer, layer, (torch.randn(1, LENGTH, WIDTH).double(),), {}, LENGTH))
    assert traced.looks_ahead() is None
    assert traced.mixing().matrix.shape == (1, 1, LENGTH, LENGTH)
    assert len(runs) == 2


@pytest.mark.parametrize("place", [0, 1, LENGTH // 2, LENGTH - 2])
@torch.no_grad()
def test_one_position_that_reads_the_next_looks_ahead(place):
    def rule(layer, hidden):
        later = hidden.clone()
        later[:, place] += hidden[:, place + 1]
        return FADING.to(hidden) @ layer.first(hidden) * layer.second(later).sigmoid()

    note = trace(rule)[0].looks_ahead()
    assert note is not None
    assert note.code is Code.LOOKS_AHEAD


def by_numpy(layer, hidden):
    return torch.from_numpy(np.cumsum(layer.first(hidden).numpy(), 1)).to(hidden)


def by_number(layer, hidden):
    return FADING.to(hidden) @ layer.first(hidden) * hidden.mean().item()


def by_list(layer, hidden):
    return FADING.to(hidden) @ layer.first(hidden) * hidden.mean().tolist()


def by_branch(layer, hidden):
    values = layer.first(hidden)
    return (FADING.to(hidden) @ values) if float(hidden.numpy().std()) > 2.0 else values.cumsum(1)


@pytest.mark.parametrize("rule", [by_numpy, by_number, by_list, by_branch])
@torch.no_grad()
def test_what_passes_through_other_code_than_torch_is_refused(rule):
    with pytest.raises(ModelError) as raised:
        trace(rule)
    assert raised.value.args[0].code is Code.OUTSIDE_TORCH
