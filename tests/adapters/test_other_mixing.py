"""Layers of a researcher's own that mix by more than one map: refused, or named, and never silently wrong."""

import pytest
import torch
from torch import nn
from torch.nn import functional

import statesize as ss
from statesize.adapters import capture
from statesize.errors import ModelError

WIDTH, HEADS = 16, 2


class Layer(nn.Module):
    """Queries, keys and values, and what a subclass makes of them."""

    def __init__(self):
        super().__init__()
        self.projection, self.output = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.beside = nn.Linear(WIDTH, WIDTH)
        self.mixing = nn.Conv1d(WIDTH, WIDTH, 3, padding=2, groups=WIDTH)

    def forward(self, hidden):
        parts = self.projection(hidden).unflatten(-1, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
        return self.output(self.mixed(hidden, *parts).transpose(1, 2).flatten(2))

    @staticmethod
    def maps(query, key, scale=1.0):
        scores = scale * query @ key.mT / query.shape[-1] ** 0.5
        return scores.masked_fill(torch.ones(scores.shape[-2:]).triu(1).bool(), -torch.inf).softmax(-1)

    def heads(self, hidden):
        return hidden.unflatten(-1, (HEADS, -1)).transpose(1, 2)

    def convolved(self, hidden):
        return self.heads(self.mixing(hidden.mT)[..., : hidden.shape[1]].mT)


class Plain(Layer):
    def mixed(self, hidden, query, key, value):
        return self.maps(query, key) @ value * self.heads(self.beside(hidden)).sigmoid()


class Twice(Layer):
    def mixed(self, hidden, query, key, value):
        maps = self.maps(query, key)
        return maps @ (maps @ value)


class ConvolvedBehind(Layer):
    def mixed(self, hidden, query, key, value):
        mixed = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        return self.convolved(mixed.transpose(1, 2).flatten(2))


class LinearBranch(Layer):
    def mixed(self, hidden, query, key, value):
        state = torch.einsum("bhlk,bhlv->bhlkv", key, value).cumsum(2)
        return self.maps(query, key) @ value + torch.einsum("bhlk,bhlkv->bhlv", query, state)


class Averaged(Layer):
    def mixed(self, hidden, query, key, value):
        mean = self.beside(hidden).cumsum(1) / torch.arange(1, hidden.shape[1] + 1)[:, None]
        return functional.scaled_dot_product_attention(query, key, value, is_causal=True) + self.heads(mean)


class ConvolvedBefore(Layer):
    def mixed(self, hidden, query, key, value):
        return self.maps(query, key) @ self.convolved(value.transpose(1, 2).flatten(2))


class ConvolvedQueries(Layer):
    """How T comes about is no mixing of values."""

    def mixed(self, hidden, query, key, value):
        return self.maps(self.convolved(query.transpose(1, 2).flatten(2)), key) @ value


class Difference(Layer):
    def mixed(self, hidden, query, key, value):
        return self.maps(query, key) @ value - 0.5 * (self.maps(query, key, 2.0) @ value)


class ScaledDifference(Layer):
    """The second map is no softmax any more when it meets the values."""

    def mixed(self, hidden, query, key, value):
        return self.maps(query, key) @ value - 0.5 * self.maps(query, key, 2.0) @ value


class TwoMaps(Layer):
    """Two maps of values of their own are two mixers, as two layers are."""

    def mixed(self, hidden, query, key, value):
        first, second = functional.silu(value), functional.relu(value)
        return self.maps(query, key) @ first + self.maps(query, key, 2.0) @ second


class Model(nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.embedding, self.layers = nn.Embedding(50, WIDTH), nn.ModuleList([layer()])

    def forward(self, input_ids):
        hidden = self.embedding(input_ids)
        for layer in self.layers:
            hidden = hidden + layer(hidden)
        return hidden


def model(layer):
    torch.manual_seed(0)
    return Model(layer)


IDS = torch.arange(24)[None]


@pytest.mark.parametrize("layer", [Plain, ConvolvedQueries])
def test_one_map_and_what_acts_on_each_position_by_itself(layer):
    (found,) = capture(model(layer), IDS)
    assert (found.name, found.note) == ("layers.0", "")


@pytest.mark.parametrize("layer", [Twice, ConvolvedBehind])
def test_mixing_behind_the_map_is_refused(layer):
    reason = r"^Mixer layers\.0: what its map returns is mixed over positions once more before it leaves the module"
    with pytest.raises(ModelError, match=reason):
        list(capture(model(layer), IDS))
    # In each sequence, not in the first alone.
    with pytest.raises(ModelError, match=reason):
        ss.profile(model(layer), [IDS[0], IDS[0] + 1], positions=1)


BESIDE = "positions are mixed beside the map too"
BEFORE = "its values are mixed before"
SEVERAL = "several maps mix the same values"


@pytest.mark.parametrize(
    ("layer", "said", "mixers"),
    [
        (LinearBranch, BESIDE, 1),
        (Averaged, BESIDE, 1),
        (ConvolvedBefore, BEFORE, 1),
        (Difference, SEVERAL, 2),
        (ScaledDifference, BESIDE, 1),
        (TwoMaps, "", 2),
    ],
)
def test_other_mixing_is_named(layer, said, mixers, capsys):
    found = list(capture(model(layer), IDS))
    assert len(found) == mixers
    for item in found:
        assert item.note.startswith(f"Other mixing was seen here: {said}" if said else "")
        assert bool(item.note) == bool(said)
    profile = ss.profile(model(layer), IDS, positions=1)
    assert profile.notes == {item.name: item.note for item in found if said}


def test_a_forward_of_ones_own_in_a_class_of_a_library():
    """A module that was given another forward, as by a patch, is no longer what its class is known as."""
    from oracles.attention_models import attention_model, token_ids

    llama = attention_model("llama")
    part = llama.model.layers[0].self_attn
    usual = part.forward

    def patched(*args, **kwargs):
        output, maps = usual(*args, **kwargs)
        return output.cumsum(1), maps

    assert [item.name for item in capture(llama, token_ids())] == [f"model.layers.{n}.self_attn" for n in (0, 1)]
    part.forward = patched
    captured = capture(llama, token_ids())
    assert [item.name for item in captured] == ["model.layers.1.self_attn"]
    assert "mixed over positions once more" in captured.skipped["model.layers.0.self_attn"]


def test_layers_that_take_heads():
    """Attention as a module of queries, keys and values, whose positions are the third dimension."""

    class Attend(nn.Module):
        def forward(self, query, key, value, twice):
            mixed = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
            return mixed.cumsum(2) if twice else mixed

    class Outer(Layer):
        twice = False

        def __init__(self):
            super().__init__()
            self.attend = Attend()

        def mixed(self, hidden, query, key, value):
            return self.attend(query, key, value, twice=self.twice)

    (found,) = capture(model(Outer), IDS)
    assert (found.name, found.note) == ("layers.0.attend", "")
    Outer.twice = True
    with pytest.raises(ModelError, match=r"^Mixer layers\.0\.attend: what its map returns is mixed"):
        list(capture(model(Outer), IDS))
