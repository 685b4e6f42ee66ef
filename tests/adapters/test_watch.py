"""The first pass: arguments as they were, one call for each mixer."""

import pytest
import torch
from oracles.attention_models import token_ids
from torch import nn
from torch.nn import functional

from statesize import Dense, capture
from statesize.errors import ModelError


class Attention(nn.Module):
    def __init__(self, inner=None):
        super().__init__()
        self.projection, self.inner = nn.Linear(8, 8), inner

    def forward(self, hidden, shift=None):
        hidden = self.projection(hidden if shift is None else hidden + shift)
        heads = hidden.unflatten(-1, (2, 4)).transpose(1, 2)
        mixed = functional.scaled_dot_product_attention(heads, heads, heads, is_causal=True).transpose(1, 2).flatten(2)
        return mixed if self.inner is None else self.inner(mixed)


class Model(nn.Module):
    def __init__(self, *layers):
        super().__init__()
        torch.manual_seed(0)
        self.embedding, self.layers = nn.Embedding(64, 8), nn.ModuleList(layers)

    def forward(self, ids):
        hidden = self.embedding(ids)
        shift = torch.ones(8)
        for layer in self.layers:
            # What a layer was given changes afterwards, in place.
            hidden += layer(hidden, shift=shift)
            shift += 1
        return hidden


def test_arguments_are_kept_as_they_were_when_a_mixer_was_called():
    items = list(capture(Model(Attention(), Attention()), token_ids()))
    assert [item.name for item in items] == ["layers.0", "layers.1"]
    assert all(item.faithfulness < 1e-5 for item in items)


def test_a_tensor_that_several_mixers_are_given_is_copied_once():
    class Shared(Model):
        def forward(self, ids):
            hidden, shift = self.embedding(ids), torch.ones(8)
            return sum(layer(hidden, shift=shift) for layer in self.layers)

    captured = capture(Shared(Attention(), Attention()), token_ids())
    first, second = captured._calls
    assert first.args[0] is second.args[0]
    assert first.kwargs["shift"] is second.kwargs["shift"]


def test_a_mixer_that_knows_its_operator_but_receives_no_tensor_is_refused():
    class Known(nn.Module):
        def operator(self, hidden):
            return Dense(torch.eye(hidden.shape[1]).expand(len(hidden), 1, -1, -1))

        def forward(self, hiddens):
            return hiddens[0]

    class Split(Model):
        def forward(self, ids):
            return self.layers[0]([self.embedding(ids)])

    with pytest.raises(ModelError, match=r"Mixer layers\.0 was called with list .* tensor of hidden states"):
        capture(Split(Known()), token_ids())


def test_a_mixer_that_returns_no_tensor_is_compared_by_its_operator_alone():
    class Named(Attention):
        def forward(self, hidden, shift=None):
            return {"mixed": super().forward(hidden, shift)}

    class Unpacking(Model):
        def forward(self, ids):
            return self.layers[0](self.embedding(ids))["mixed"]

    (item,) = capture(Unpacking(Named()), token_ids())
    assert item.faithfulness < 1e-5
    torch.testing.assert_close(item.operator.dense().sum(-1), torch.ones(2, 2, 21, dtype=torch.float64))
