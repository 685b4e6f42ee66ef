"""The first pass: arguments as they were, one call for each mixer."""

import torch
from oracles.attention_models import token_ids
from torch import nn
from torch.nn import functional

from statesize import capture


class Attention(nn.Module):
    def forward(self, hidden, shift):
        heads = (hidden + shift)[:, None]
        return functional.scaled_dot_product_attention(heads, heads, heads, is_causal=True)[:, 0]


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
