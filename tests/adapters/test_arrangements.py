"""What belongs to T, in arrangements of one gated linear attention: with convolutions, gates, norms and branches."""

import pytest
import torch
from torch import nn
from torch.nn import functional

import statesize as ss
from campaigns.layers.campaign import largest_share

WIDTH, HEADS, LENGTH = 8, 2, 10
TOKENS = torch.randint(0, 50, (1, LENGTH), generator=torch.Generator().manual_seed(3))


def convolved(hidden, weight):
    return functional.conv1d(functional.pad(hidden.mT, (2, 0)), weight, groups=len(weight)).mT


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
        lag = torch.arange(LENGTH)[:, None] - torch.arange(LENGTH)
        taps = functional.pad(weight[:, 0].flip(-1), (0, LENGTH - 3))[:, lag.clamp_min(0)].tril()
        return self.definition(hidden).repeat_interleave(WIDTH // HEADS, 0) @ taps


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
        (ConvolutionBefore, {}, "Its values are mixed before"),
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
    assert said in found["mixer"].note
    assert bool(said) == ("mixed before" in found["mixer"].note)


def test_a_linear_convolution_of_values_belongs_to_t():
    layer, hidden, found, skipped = captured(ConvolvedValues)
    assert (found.keys(), skipped) == ({"mixer"}, {})
    assert_is(found["mixer"], layer.with_convolution(hidden, layer.weight))
    layer, hidden, found, skipped = captured(ModuleOnValues)
    assert (found.keys(), skipped) == ({"mixer"}, {})
    assert "Its T contains what mixer.convolution mixes." in found["mixer"].note
    assert_is(found["mixer"], layer.with_convolution(hidden, layer.convolution.weight))


def test_a_state_size_of_the_class_that_t_exceeds_is_not_believed():
    class Said(ConvolvedValues):
        state_size = 4

    _, _, found, _ = captured(Said)
    item = found["mixer"]
    assert (item.state_bytes, int(item.operator.state_size().max())) == (None, LENGTH - 1)
    assert item.note == (
        "Its T keeps more than the 4 numbers that its class names by `state_size`. How many numbers it can "
        "store is unknown. A longer text may show how many, or its class can give an integer `state_size` that is not "
        "less than what T keeps."
    )


def test_branches_beside_each_other_are_both_measured():
    layer, hidden, found, skipped = captured(Beside)
    assert (found.keys(), skipped) == ({"mixer", "mixer.linear"}, {})
    assert (found["mixer"].kind, found["mixer"].note) == ("attention", "")
    assert_is(found["mixer.linear"], layer.linear.definition(hidden))
