"""What belongs to T, in arrangements of one gated linear attention: with convolutions, gates, norms and branches."""

import pytest
import torch
from torch import nn
from torch.nn import functional

import statesize as ss
from campaigns.layers.campaign import largest_share
from statesize.codes import joined

WIDTH, HEADS, LENGTH = 8, 2, 7
TOKENS = torch.randint(0, 50, (1, LENGTH), generator=torch.Generator().manual_seed(3))


def convolved(hidden, weight):
    return functional.conv1d(functional.pad(hidden.mT, (2, 0)), weight, groups=len(weight)).mT


def convolutions(weight):
    """T of `convolved`, of each channel."""
    lag = torch.arange(LENGTH)[:, None] - torch.arange(LENGTH)
    return functional.pad(weight[:, 0].flip(-1), (0, LENGTH - 3))[:, lag.clamp_min(0)].tril()


class Convolution(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(WIDTH, 1, 3))

    def forward(self, hidden):
        return convolved(hidden, self.weight)


class Activated(Convolution):
    def forward(self, hidden):
        return functional.silu(super().forward(hidden))


class Plain(nn.Module):
    """Gated linear attention as a loop."""

    def __init__(self):
        super().__init__()
        self.query, self.key, self.value, self.leave = (nn.Linear(WIDTH, WIDTH) for _ in range(4))
        self.decay, self.gate, self.norm = nn.Linear(WIDTH, HEADS), nn.Linear(WIDTH, WIDTH), nn.LayerNorm(WIDTH)
        self.convolution, self.weight = None, nn.Parameter(torch.randn(WIDTH, 1, 3))

    def entered(self, hidden):
        return hidden

    def factors(self, hidden):
        return self.query(hidden), self.key(hidden), self.value(hidden)

    def left(self, hidden, mixed):
        return self.leave(mixed)

    def forward(self, hidden):
        hidden = self.entered(hidden)
        query, key, value = (part.unflatten(-1, (HEADS, -1)) for part in self.factors(hidden))
        decay, state, outputs = self.decay(hidden).sigmoid()[..., None, None], 0, []
        for step in range(hidden.shape[1]):
            state = decay[:, step] * state + key[:, step, :, :, None] * value[:, step, :, None, :]
            outputs.append((query[:, step, :, None] @ state).squeeze(-2))
        return self.left(hidden, torch.stack(outputs, 1).flatten(2))

    def definition(self, hidden):
        """T of each head, (H, L, L)."""
        hidden = self.entered(hidden)
        query, key, _ = (part.unflatten(-1, (HEADS, -1)) for part in self.factors(hidden))
        passed = self.decay(hidden).sigmoid().log().cumsum(1)[0].T
        scores = torch.einsum("ihd,jhd->hij", query[0], key[0])
        return (scores * (passed[:, :, None] - passed[:, None]).exp()).tril()

    def with_convolution(self, hidden, weight):
        """A C of each channel, (H P, L, L)."""
        return self.definition(hidden).repeat_interleave(WIDTH // HEADS, 0) @ convolutions(weight)


class GateBehind(Plain):
    def left(self, hidden, mixed):
        return self.leave(mixed * functional.silu(self.gate(hidden)))


class NormBehind(Plain):
    def left(self, hidden, mixed):
        return self.leave(self.norm(mixed))


class NormBetween(Plain):
    def factors(self, hidden):
        query, key, value = super().factors(hidden)
        return functional.normalize(query, dim=-1), functional.normalize(key, dim=-1), self.norm(value)


class ConvolutionBefore(GateBehind):
    def entered(self, hidden):
        return convolved(hidden, self.weight)


class ModuleBefore(GateBehind):
    def __init__(self):
        super().__init__()
        self.convolution = Activated()

    def entered(self, hidden):
        return self.convolution(hidden)


class ConvolvedQueriesAndKeys(Plain):
    def factors(self, hidden):
        query, key, value = super().factors(hidden)
        return convolved(query, self.weight), convolved(key, self.weight), value


class ConvolvedValues(GateBehind):
    def factors(self, hidden):
        query, key, value = super().factors(hidden)
        return query, key, convolved(value, self.weight)


class ModuleOnValues(GateBehind):
    kind_of_convolution = Convolution

    def __init__(self):
        super().__init__()
        self.convolution = self.kind_of_convolution()

    def factors(self, hidden):
        query, key, value = super().factors(hidden)
        return query, key, self.convolution(value)


class ActivatedModuleOnValues(ModuleOnValues):
    kind_of_convolution = Activated


def shifted(hidden):
    return hidden + 0.5 * functional.pad(hidden, (0, 0, 1, 0))[:, :-1]


class ShiftBefore(Plain):
    def entered(self, hidden):
        return shifted(hidden)


class ShiftBehind(Plain):
    def left(self, hidden, mixed):
        return shifted(self.leave(mixed))


class ShiftBeforeAndConvolutionBehind(ShiftBefore):
    def left(self, hidden, mixed):
        return convolved(self.leave(mixed), self.weight)


class ConvolutionOfHeadsBehind(Plain):
    """Behind the mixing of the heads and before all channels are projected: one T of both."""

    def left(self, hidden, mixed):
        return self.leave(convolved(mixed, self.weight))

    def whole(self, hidden):
        return convolutions(self.weight) @ self.definition(hidden).repeat_interleave(WIDTH // HEADS, 0)


class SumOfHeadsBehind(Plain):
    def left(self, hidden, mixed):
        return self.leave(mixed.cumsum(1))

    def whole(self, hidden):
        return torch.ones(LENGTH, LENGTH).tril() @ self.definition(hidden)


class Twice(Plain):
    def forward(self, hidden):
        return super().forward(super().forward(hidden))


class ConvolutionBeside(Plain):
    def left(self, hidden, mixed):
        return self.leave(mixed) + convolved(self.gate(hidden), self.weight)


class SumOfHeadsBeside(Plain):
    def left(self, hidden, mixed):
        return self.leave(mixed + self.gate(hidden).cumsum(1))


class Beside(nn.Module):
    """Softmax attention in the module's own code, and linear attention as a module."""

    def __init__(self):
        super().__init__()
        self.project, self.linear = nn.Linear(WIDTH, 3 * WIDTH), Plain()

    def forward(self, hidden):
        query, key, value = (
            part.unflatten(-1, (HEADS, -1)).transpose(1, 2) for part in self.project(hidden).chunk(3, -1)
        )
        mixed = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        return mixed.transpose(1, 2).flatten(2) + self.linear(hidden)


class Model(nn.Module):
    def __init__(self, mixer):
        super().__init__()
        self.embedding, self.norm, self.mixer = nn.Embedding(50, WIDTH), nn.LayerNorm(WIDTH), mixer

    def forward(self, tokens):
        hidden = self.embedding(tokens)
        return hidden + self.mixer(self.norm(hidden))


def captured(mixer):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Model(mixer())
    capture = ss.capture(model, TOKENS)
    found = {item.name: item for item in capture}
    assert all(largest_share(item) <= 1 for item in found.values())
    with torch.no_grad():
        hidden = model.norm(model.embedding(TOKENS))
    return model.mixer, hidden, found, capture.skipped


def assert_is(item, expected):
    expected = expected.detach().double()
    assert (item.units, item.multiplicity) == (len(expected), WIDTH // len(expected))
    below = torch.ones(LENGTH, LENGTH).tril(-1).bool()
    dense = item.operator.dense()[0].double()
    torch.testing.assert_close(dense[:, below], expected[:, below], rtol=0, atol=1e-5 * expected.abs().max().item())
    torch.testing.assert_close(
        ss.measure(item.operator).entropy.mean(), ss.measure(ss.Dense(expected[None])).entropy.mean(), rtol=1e-3, atol=0
    )


@pytest.mark.parametrize(
    ("mixer", "beside", "said"),
    [
        pytest.param(Plain, {}, "", marks=pytest.mark.slow),
        pytest.param(GateBehind, {}, "", marks=pytest.mark.slow),
        (NormBehind, {}, ""),
        (NormBetween, {}, ""),
        pytest.param(ConvolvedQueriesAndKeys, {}, "", marks=pytest.mark.slow),
        (
            ConvolutionBefore,
            {},
            "T is without a mixing of 3 positions before it and a mixing of 3 positions beside it.",
        ),
        pytest.param(
            ModuleBefore,
            {"mixer.convolution"},
            "Its values are mixed before by mixer.convolution",
            marks=pytest.mark.slow,
        ),
        (ActivatedModuleOnValues, {"mixer.convolution"}, "Its values are mixed before by mixer.convolution"),
    ],
)
def test_t_begins_where_what_follows_is_linear_and_ends_before_gates_and_norms(mixer, beside, said):
    layer, hidden, found, skipped = captured(mixer)
    assert (found.keys(), skipped) == ({"mixer", *beside}, {})
    assert_is(found["mixer"], layer.definition(hidden))
    assert said in joined(found["mixer"].notes)
    assert bool(said) == ("before" in joined(found["mixer"].notes))


def test_a_linear_convolution_of_values_belongs_to_t():
    layer, hidden, found, skipped = captured(ConvolvedValues)
    assert (found.keys(), skipped) == ({"mixer"}, {})
    assert_is(found["mixer"], layer.with_convolution(hidden, layer.weight))
    layer, hidden, found, skipped = captured(ModuleOnValues)
    assert (found.keys(), skipped) == ({"mixer"}, {})
    assert "Its T contains what mixer.convolution mixes." in joined(found["mixer"].notes)
    assert_is(found["mixer"], layer.with_convolution(hidden, layer.convolution.weight))


@pytest.mark.few(3)
@pytest.mark.parametrize(
    ("mixer", "without"),
    [
        (ShiftBeforeAndConvolutionBehind, "a mixing of 2 positions before it and a mixing of 3 positions behind it"),
        *((whole, "") for whole in (ConvolutionOfHeadsBehind, SumOfHeadsBehind, Twice)),
        (ConvolutionBeside, "a mixing of 3 positions beside it"),
        (SumOfHeadsBeside, "a mixing of 7 positions beside it"),
    ],
)
def test_what_mixes_twice_is_measured_as_a_whole_or_its_number_is_said_to_be_of_a_part(mixer, without):
    layer, hidden, found, skipped = captured(mixer)
    item = found.pop("mixer")
    assert (found, skipped) == ({}, {})
    if hasattr(layer, "whole"):
        assert_is(item, layer.whole(hidden))
    elif without:
        assert_is(item, layer.definition(hidden))
    else:
        jacobian = torch.autograd.functional.jacobian(layer.double(), hidden.double())[0, :, :, 0]
        torch.testing.assert_close(item.operator.matrix[0, 0], jacobian, rtol=0, atol=1e-9)
    said = f"Measured in part: T is without {without}."
    assert joined(item.notes).endswith(said) == bool(without) == ("in part" in joined(item.notes))


@pytest.mark.few(1)
@pytest.mark.parametrize("mixer", [ShiftBehind, ConvolutionOfHeadsBehind])
def test_a_profile_says_that_a_layer_is_measured_in_part(mixer):
    without = "a mixing of 2 positions behind it" if mixer is ShiftBehind else ""
    said = f"Measured in part: T is without {without}."
    with torch.random.fork_rng():
        torch.manual_seed(0)
        profile = ss.profile(Model(mixer()), TOKENS)
    assert (said in repr(profile)) == bool(without)
    assert ("in part" in profile.summary()["limits"][0]) == bool(without)
    assert any("as a whole" in note for note in ss.compare([profile]).notes) == bool(without)


def test_a_state_size_of_the_class_that_t_exceeds_is_not_believed():
    class Said(ConvolvedValues):
        state_size = 2

    _, _, found, _ = captured(Said)
    item = found["mixer"]
    assert (item.state_bytes, int(item.operator.state_size().max())) == (None, LENGTH - 1)
    assert joined(item.notes) == (
        "How many numbers it can store is unknown: T keeps more than the 2 numbers that its `state_size` names; make "
        "it larger, or leave it out."
    )


def test_branches_beside_each_other_are_both_measured():
    layer, hidden, found, skipped = captured(Beside)
    assert (found.keys(), skipped) == ({"mixer", "mixer.linear"}, {})
    assert found["mixer"].kind == "attention"
    assert "T is without what mixer.linear mixes beside or behind it" in joined(found["mixer"].notes)
    assert_is(found["mixer.linear"], layer.linear.definition(hidden))


class HeadsFirst(nn.Module):
    """Decays of heads, on tensors whose heads lie before the texts, or behind these."""

    RATES = torch.tensor([0.95, 0.5, 0.8, 0.3])

    def __init__(self, heads, size, first):
        super().__init__()
        self.heads, self.first = heads, first
        self.values, self.output = nn.Linear(heads * size, heads * size), nn.Linear(heads * size, heads * size)

    def maps(self, length):
        lag = torch.arange(length)[:, None] - torch.arange(length)
        return (self.RATES[: self.heads, None, None] ** lag.clamp(min=0)).tril()

    def forward(self, hidden):
        values, T = self.values(hidden).unflatten(-1, (self.heads, -1)), self.maps(hidden.shape[1]).to(hidden)
        if self.first:
            mixed = (T[:, None] @ values.permute(2, 0, 1, 3)).permute(1, 2, 0, 3)
        else:
            mixed = (T @ values.transpose(1, 2)).transpose(1, 2)
        return self.output(mixed.flatten(2))


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize(("heads", "size", "texts"), [(2, 16, 1), (2, 16, 2), (3, 16, 3), (4, 4, 4), (4, 16, 2)])
def test_heads_before_texts_are_no_texts(heads, size, texts, first):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(50, heads * size), HeadsFirst(heads, size, first))
    (item,) = ss.capture(model, torch.randint(50, (texts, 24)))
    assert (item.units, item.multiplicity) == (heads, size)
    expected = model[1].maps(24).expand(texts, -1, -1, -1)
    torch.testing.assert_close(item.operator.dense().float(), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("texts", [1, 2, 3])
def test_two_positions_show_t_as_three_do(texts, first):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(50, 8), HeadsFirst(2, 4, first))
    kinds = [next(ss.capture(model, torch.randint(50, (texts, length)))).kind for length in (2, 3)]
    assert kinds == ["HeadsFirst", "HeadsFirst"]
