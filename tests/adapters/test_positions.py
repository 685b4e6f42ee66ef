"""Tensors of which two dimensions have as many entries as the text: what later tokens change tells which is which."""

import pytest
import torch
from torch import nn
from torch.nn import functional

import statesize as ss
from statesize.adapters.module_call import _axis
from statesize.codes import Code, joined

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


def test_a_layer_that_is_not_causal_is_refused_and_the_layer_before_it_is_measured(tokens):
    torch.manual_seed(0)
    with pytest.raises(ss.errors.ModelError, match="must be causal"):
        list(ss.capture(Model(Backwards()), tokens))
    (captured, *_) = ss.capture(Model(Mean(), Backwards()), tokens)
    assert Code.NOT_CAUSAL in [note.code for note in captured.notes]


@pytest.mark.parametrize(("off", "axis"), [(0, 2), (9e-6, 2), (2e-5, 1)])
def test_the_dimension_along_which_only_rounding_changes_before_the_cut_is_that_of_positions(off, axis):
    one, changed = torch.ones(1, SIZE, SIZE), torch.zeros(SIZE)
    changed[0], changed[SIZE // 2 :] = off, 1.0
    assert _axis(one, one + changed, SIZE, SIZE // 2) == axis
