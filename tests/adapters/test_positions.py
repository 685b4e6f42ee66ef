"""Tensors of which two dimensions have as many entries as the text: what later tokens change tells which is which."""

import pytest
import torch
from torch import nn
from torch.nn import functional

import statesize as ss
from statesize.adapters.module_call import _axis
from statesize.codes import joined

SIZE = 16
CAUSAL = torch.ones(SIZE, SIZE, dtype=torch.bool).tril()


class Convolved(nn.Module):
    """A depthwise convolution over the last dimension."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(SIZE, 1, 4))

    def forward(self, hidden):
        return functional.conv1d(functional.pad(hidden, (3, 0)), self.weight, groups=SIZE)


class Mean(nn.Module):
    def __init__(self):
        super().__init__()
        self.values, self.output = nn.Conv1d(SIZE, SIZE, 1), nn.Conv1d(SIZE, SIZE, 1)

    def forward(self, hidden):
        return self.output(self.values(hidden).cumsum(-1) / torch.arange(1, SIZE + 1))


class Attention(nn.Module):
    """Torch's fused attention."""

    def __init__(self):
        super().__init__()
        self.projections = nn.Conv1d(SIZE, 3 * SIZE, 1)

    def forward(self, hidden):
        query, key, value = (part.mT[:, None] for part in self.projections(hidden).chunk(3, 1))
        return functional.scaled_dot_product_attention(query, key, value, is_causal=True)[:, 0].mT


class Backwards(nn.Module):
    def forward(self, hidden):
        return hidden + hidden.flip(-1).cumsum(-1).flip(-1)


class NotLinear(nn.Module):
    def forward(self, hidden):
        states = [hidden[..., 0].tanh()]
        for step in range(1, hidden.shape[-1]):
            states.append((states[-1] + hidden[..., step]).tanh())
        return torch.stack(states, -1)


class Block(nn.Module):
    """A mixer and a projection of each position."""

    def __init__(self, mixer):
        super().__init__()
        self.mixer, self.project = mixer, nn.Conv1d(SIZE, SIZE, 1)

    def forward(self, hidden):
        hidden = hidden + self.mixer(hidden)
        return hidden + self.project(hidden).relu()


class Model(nn.Module):
    def __init__(self, *layers):
        super().__init__()
        self.embedding, self.layers = nn.Embedding(50, SIZE), nn.Sequential(*layers)

    def forward(self, tokens):
        return self.layers(self.embedding(tokens).mT).mT


@pytest.fixture
def tokens():
    return torch.randint(50, (2, SIZE), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("kind", [Convolved, Mean, Attention])
@pytest.mark.parametrize("of_frames", [False, True])
def test_a_layer_of_channels_before_positions_is_measured_where_both_are_as_many(kind, of_frames, tokens):
    torch.manual_seed(0)
    layer = kind()
    inputs, axis = (torch.randn(2, SIZE, SIZE), 2) if of_frames else (tokens, None)
    (captured,) = ss.capture(layer if of_frames else Model(layer), inputs, axis=axis)
    T = captured.operator.dense()
    assert (captured.units, captured.multiplicity) == ((SIZE, 1) if kind is Convolved else (1, SIZE))
    assert "not causal" not in joined(captured.notes)
    if kind is Mean:
        expected = CAUSAL.double() / torch.arange(1, SIZE + 1)[:, None]
        torch.testing.assert_close(T, expected.expand_as(T))
    if kind is Convolved:
        torch.testing.assert_close(T[0, :, 5, 2:6], layer.weight[:, 0].double())


@pytest.mark.parametrize("text", [[3] * SIZE, [5, 9, 2] + [0] * (SIZE - 3)], ids=["repeated", "padded"])
def test_so_it_is_in_a_text_that_ends_with_one_repeated_token(text):
    torch.manual_seed(0)
    (captured,) = ss.capture(Model(Mean()), torch.tensor([text]))
    assert (captured.units, captured.multiplicity) == (1, SIZE)


def test_blocks_of_such_layers_are_measured_each(tokens):
    torch.manual_seed(0)
    captured = list(ss.capture(Model(Block(Mean()), Block(Attention()), Block(Mean())), tokens))
    assert [item.name for item in captured] == [f"layers.{number}.mixer" for number in range(3)]
    assert not any("not causal" in joined(item.notes) for item in captured)


def test_a_layer_that_is_not_causal_is_refused_and_the_layer_before_it_is_measured(tokens):
    torch.manual_seed(0)
    with pytest.raises(ss.errors.ModelError, match="must be causal"):
        list(ss.capture(Model(Backwards()), tokens))
    (captured, *_) = ss.capture(Model(Mean(), Backwards()), tokens)
    assert "What enters this layer does not depend on later tokens" in joined(captured.notes)


def test_a_layer_without_a_t_is_measured_by_its_derivative(tokens):
    torch.manual_seed(0)
    (captured,) = ss.capture(Model(NotLinear()), tokens[:1])
    assert captured.kind == "derivative"
    # All dimensions are of one size, so that only their order tells: no channel's answer depends on another channel.
    (T,) = captured.operator.dense().flatten(0, 1)
    by_channel = T.unflatten(0, (SIZE, SIZE)).unflatten(2, (SIZE, SIZE)).abs().sum((0, 2))
    torch.testing.assert_close(by_channel, by_channel.diagonal().diag())


class Decays(nn.Module):
    """What each head keeps of position j at position i, (S, i, j, H) or (S, H, i, j)."""

    def __init__(self, heads_last):
        super().__init__()
        self.gate, self.heads_last = nn.Linear(SIZE, 4), heads_last

    def forward(self, hidden):
        passed = functional.logsigmoid(self.gate(hidden)).cumsum(1)
        maps = (passed[:, :, None] - passed[:, None]).masked_fill(~CAUSAL[..., None], -torch.inf).exp()
        return maps if self.heads_last else maps.permute(0, 3, 1, 2)


class Decayed(nn.Module):
    """Sums of values by decays that another module has made."""

    def __init__(self, heads_last):
        super().__init__()
        self.values, self.equation = nn.Linear(SIZE, SIZE), "bijh" if heads_last else "bhij"

    def forward(self, hidden, decays):
        values = self.values(hidden).unflatten(-1, (4, -1))
        return torch.einsum(f"{self.equation},bjhd->bihd", decays, values).flatten(2)


class WithDecays(nn.Module):
    def __init__(self, heads_last):
        super().__init__()
        self.embedding, self.decays, self.layer = nn.Embedding(50, SIZE), Decays(heads_last), Decayed(heads_last)

    def forward(self, tokens):
        hidden = self.embedding(tokens)
        return self.layer(hidden, self.decays(hidden))


@pytest.mark.parametrize("heads_last", [True, False])
def test_maps_that_enter_a_layer_and_leave_another_one_have_their_rows_as_positions(heads_last, tokens):
    torch.manual_seed(0)
    model = WithDecays(heads_last)
    decays, layer = ss.capture(model, tokens)
    assert (decays.name, layer.name) == ("decays", "layer")
    with torch.no_grad():
        maps = model.decays(model.embedding(tokens)).double()
    torch.testing.assert_close(layer.operator.dense(), maps.permute(0, 3, 1, 2) if heads_last else maps)


@pytest.mark.parametrize(("off", "axis"), [(0, 2), (9e-6, 2), (2e-5, 1)])
def test_the_dimension_along_which_only_rounding_changes_before_the_cut_is_that_of_positions(off, axis):
    one, changed = torch.ones(1, SIZE, SIZE), torch.zeros(SIZE)
    changed[0], changed[SIZE // 2 :] = off, 1.0
    assert _axis(one, one + changed, SIZE, SIZE // 2) == axis
