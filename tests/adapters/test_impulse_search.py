"""What T acts on is found to the rounding of float64, whatever the gates, the text and what was measured before."""

import pytest
import torch
from torch import nn

import statesize as ss
from statesize.adapters.select import NothingMeasuredError
from statesize.codes import Code, joined

WIDTH, HEADS = 8, 2


class Forgetting(nn.Module):
    """h = f_t h + u_t, with gates and inputs of one projection."""

    def __init__(self, bias=0.0, scale=1.0):
        super().__init__()
        self.project, self.output, self.bias, self.scale = nn.Linear(WIDTH, 2 * WIDTH), nn.Linear(WIDTH, 8), bias, scale

    def parts(self, hidden):
        gates, entering = self.project(hidden).chunk(2, -1)
        return (self.scale * gates + self.bias).sigmoid(), entering

    def forward(self, hidden):
        gates, entering = self.parts(hidden)
        state, outputs = torch.zeros_like(entering[:, 0]), []
        for step in range(hidden.shape[1]):
            state = gates[:, step] * state + entering[:, step]
            outputs.append(state)
        return self.output(torch.stack(outputs, 1))

    def definition(self, hidden):
        gates, length = self.parts(hidden)[0].mT, hidden.shape[1]
        column = [torch.zeros(*gates.shape[:2], length, dtype=gates.dtype)]
        for step in range(length):
            column.append(gates[..., step, None] * column[-1] + nn.functional.one_hot(torch.tensor(step), length))
        return torch.stack(column[1:], 2)


class Attention(nn.Module):
    """Softmax-free attention by a window and a bias by distance."""

    def __init__(self, window=None, slope=0.0):
        super().__init__()
        self.project, self.window, self.slope = nn.Linear(WIDTH, 3 * WIDTH), window, slope

    def parts(self, hidden):
        query, key, value = self.project(hidden).unflatten(-1, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
        distance = torch.arange(hidden.shape[1])[:, None] - torch.arange(hidden.shape[1])
        hidden_from = (distance < 0) | (distance >= (self.window or len(distance)))
        return (query @ key.mT - self.slope * distance).sigmoid().masked_fill(hidden_from, 0), value

    def forward(self, hidden):
        maps, values = self.parts(hidden)
        return (maps @ values).transpose(1, 2).flatten(2)

    def definition(self, hidden):
        return self.parts(hidden)[0]


class Reading(Attention):
    """Maps that depend on the values that they mix."""

    def parts(self, hidden):
        maps, values = super().parts(hidden)
        return maps * values.mean(-1).sigmoid()[..., None, :], values


def model_of(*layers, seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Embedding(50, WIDTH), *(layer() for layer in layers))


def assert_defined(model, captured, tokens, layer=1):
    with torch.no_grad():
        expected = model.double()[layer].definition(model[:layer](tokens))
    assert captured.operator.dense().shape == expected.shape
    torch.testing.assert_close(captured.operator.dense(), expected, rtol=0, atol=1e-12)


@pytest.mark.few(2)
@pytest.mark.parametrize("length", [24, pytest.param(60, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "make",
    [
        Forgetting,
        lambda: Forgetting(bias=-4.0),
        lambda: Forgetting(bias=12.0),
        lambda: Forgetting(scale=40.0),
    ],
    ids=["half open", "nearly closed", "nearly open", "far apart"],
)
def test_a_loop_that_forgets_is_measured(make, length):
    model, tokens = model_of(make), torch.randint(0, 50, (1, length), generator=torch.Generator().manual_seed(length))
    (captured,) = ss.capture(model, tokens)
    assert (captured.units, captured.multiplicity) == (WIDTH, 1)
    assert_defined(model, captured, tokens)


@pytest.mark.few(2)
@pytest.mark.parametrize(
    "make",
    [lambda: Attention(window=4), lambda: Attention(slope=0.25), Reading, Forgetting],
    ids=["window", "bias by distance", "values in the map", "loop"],
)
@pytest.mark.parametrize("period", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_a_text_of_few_tokens_tells_every_column(make, period):
    model, tokens = model_of(make), torch.arange(40)[None] % period
    (captured,) = ss.capture(model, tokens)
    assert_defined(model, captured, tokens)


class Degenerate(Attention):
    """Its second head has the keys of the first."""

    def __init__(self):
        super().__init__(slope=0.2)
        with torch.no_grad():
            for part in (self.project.weight, self.project.bias):
                heads = part.unflatten(0, (3, HEADS, -1))
                heads[:2, 1] = heads[:2, 0]


@pytest.mark.few(1)
@pytest.mark.parametrize(
    "pair",
    [
        (Attention, lambda: Attention(window=3)),
        pytest.param((Attention, Degenerate), marks=pytest.mark.slow),
        pytest.param((lambda: Forgetting(bias=9.0), Forgetting), marks=pytest.mark.slow),
        (Reading, Reading),
    ],
    ids=["windows", "equal heads", "gates", "weights"],
)
def test_no_module_changes_the_numbers_of_another_of_its_class(pair):
    tokens = torch.arange(30)[None]
    alone = [list(ss.capture(model_of(make, seed=seed), tokens)) for seed, make in enumerate(pair)]
    for order in ((0, 1), (1, 0)):
        for number in order:
            (captured,) = ss.capture(model_of(pair[number], seed=number), tokens)
            assert captured.units == alone[number][0].units
            assert torch.equal(captured.operator.dense(), alone[number][0].operator.dense())


class InNumpy(Forgetting):
    """A running sum by other code than torch's."""

    def forward(self, hidden):
        entering = self.project(hidden).chunk(2, -1)[1]
        return torch.from_numpy(entering.detach().numpy().astype("float32").cumsum(1)).to(hidden)


class OfOneDtype(Forgetting):
    def forward(self, hidden):
        if hidden.dtype is not torch.float32:
            raise TypeError("float32 only")
        return self.output(self.project(hidden).chunk(2, -1)[1].cumsum(1))


def test_code_that_computes_outside_torch_is_refused_by_its_cause():
    with pytest.raises(NothingMeasuredError) as refused:
        ss.capture(model_of(InNumpy), torch.arange(30)[None])
    assert refused.value.skipped["1"].code is Code.OUTSIDE_TORCH


def test_code_that_does_not_run_in_float64_is_measured_in_float32_and_says_so():
    (captured,) = ss.capture(model_of(OfOneDtype), torch.arange(30)[None])
    assert "Its code does not run in float64" in joined(captured.notes)
    torch.testing.assert_close(captured.operator.dense()[0, 0].float(), torch.ones(30, 30).tril(), rtol=0, atol=1e-5)


class Filling(Attention):
    """Writes what it mixes into a tensor, position by position, and changes that tensor in place."""

    def __init__(self, change, returns=False):
        super().__init__()
        self.gate, self.change, self.returns = nn.Linear(WIDTH, WIDTH), change, returns

    def forward(self, hidden):
        maps, values = self.parts(hidden)
        mixed = torch.empty_like(hidden)
        for step in range(hidden.shape[1]):
            mixed[:, step] = (maps[:, :, step, None] @ values).flatten(1)
        self.change(mixed, self.gate(hidden).sigmoid())
        return mixed if self.returns else mixed.tanh()


def _added_and_gated(mixed, gate):
    mixed += gate
    mixed *= gate


@pytest.mark.parametrize("returns", [False, True])
@pytest.mark.parametrize(
    "change",
    [lambda mixed, gate: mixed.mul_(gate), _added_and_gated, lambda mixed, gate: mixed[:, :].mul_(gate)],
    ids=["gate", "sum and gate", "gate of a view"],
)
def test_what_changes_a_filled_tensor_in_place_is_in_no_t(change, returns):
    model, tokens = model_of(lambda: Filling(change, returns)), torch.arange(12)[None]
    (captured,) = ss.capture(model, tokens)
    assert (captured.units, captured.multiplicity) == (HEADS, WIDTH // HEADS)
    assert_defined(model, captured, tokens)


class Branching(nn.Module):
    """A running sum that is halved at positions which the text's numbers choose."""

    def __init__(self):
        super().__init__()
        self.values, self.output, self.choice = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 1)

    def forward(self, hidden):
        values, halves, state, outputs = self.values(hidden), self.choice(hidden)[0, :, 0] > 0, 0.0, []
        for position, halved in enumerate(halves):
            if halved:
                state = state * 0.5
            state = state * 0.9 + values[:, position]
            outputs.append(state)
        return self.output(torch.stack(outputs, 1))


def test_code_that_branches_on_numbers_has_the_t_of_the_branches_that_the_model_took():
    for seed in range(6):
        torch.manual_seed(seed)
        model, tokens = nn.Sequential(nn.Embedding(50, 8), Branching()), torch.randint(50, (1, 24))
        (item,) = ss.capture(model, tokens)
        factors = torch.where(model[1].choice(model[0](tokens))[0, :, 0] > 0, 0.45, 0.9).double()
        sums = factors.log().cumsum(0)
        expected = (sums[:, None] - sums).exp().tril()
        torch.testing.assert_close(item.operator.dense()[0, 0].double(), expected, rtol=0, atol=1e-6)
