"""What cannot be measured is refused by its cause, and what depends on later tokens is said where it lies."""

import pytest
import torch
from oracles.own_layers import TEXT, Own, model_of
from torch import nn
from torch.nn import functional

import statesize as ss
from statesize.adapters.select import NothingMeasuredError, UnknownLayerError
from statesize.codes import Code
from statesize.errors import ModelError

IDS = TEXT[:1, :12]


def summing(own, hidden, value):
    return value.cumsum(1)


def test_what_takes_nan_from_a_layer_is_no_other_layer():
    summed, divided = model_of(summing), model_of(lambda own, h, v: v.cumsum(1) / (h - h))
    # A mixer behind it is named, and the reason is not its own.
    with pytest.raises(NothingMeasuredError, match=r"^Mixer 1 must return finite numbers, .* Nor was .*2 measured"):
        ss.capture(nn.Sequential(*divided, summed[1]), IDS)
    with pytest.warns(ss.errors.StatesizeWarning, match=r"^1 of 2 layers"):
        profile = ss.profile(nn.Sequential(*summed, divided[1]), IDS)
    assert list(profile.not_measured) == ["2"]


@pytest.mark.parametrize("length", [4, 12])
@pytest.mark.parametrize("is_fused", [False, True])
def test_attention_within_each_token_mixes_no_positions(is_fused, length):
    """Four heads that attend to the heads of the same token."""

    def within(own, hidden, value):
        query, key, value = (part.unflatten(-1, (4, 2)) for part in (own.query(hidden), own.key(hidden), value))
        if is_fused:
            return functional.scaled_dot_product_attention(query, key, value).flatten(2)
        return ((query @ key.mT).softmax(-1) @ value).flatten(2)

    with pytest.raises(ModelError, match="has no mixer that statesize knows"):
        ss.capture(model_of(within), TEXT[:1, :length])
    # Nothing is lost where it is not measured.
    profile = ss.profile(model_of(summing).append(model_of(within)[1]), TEXT[:1, :length])
    assert (list(profile.mixers), profile.not_measured) == (["1"], {})


class Summing(nn.Module):
    def forward(self, tokens):
        return tokens.cumsum(-2)


def routed(expert, first):
    """One expert, which takes those of a text's tokens whose first number is positive: here all tokens, or none."""

    def mixed(own, hidden, value):
        chosen = (hidden[0, :, 0] > 0).nonzero().flatten()
        return torch.zeros_like(hidden[0]).index_add(0, chosen, own.inner(hidden[0, chosen]))[None]

    model = model_of(mixed, lambda: expert)
    model[0].weight[:, 0] = first
    return model


def test_experts_of_other_tokens_are_told_in_words():
    # The routing is taken as the model took it.
    (captured,) = ss.capture(routed(lambda tokens: tokens.cumsum(-2), 0.1), IDS)
    assert captured.kind == Own.__name__
    capture = ss.capture(routed(Summing(), 0.1), IDS)
    assert [item.name for item in capture] == ["1.inner"]
    assert "Summing must return the same shape for other numbers, got (12, 8) and (" in str(capture.skipped["1"])
    with pytest.raises(ModelError):
        ss.capture(routed(Summing(), -9.0), IDS)  # no tokens are mixed


class BothWays(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding, self.scan = model_of(Own.scan)

    def forward(self, ids):
        hidden = self.embedding(ids)
        return hidden + self.scan(hidden) + self.scan(hidden.flip(1)).flip(1)


def codes(item):
    return {note.code for note in item.notes}


def test_scans_of_a_model_that_sees_the_future_elsewhere_say_so():
    capture = ss.capture(BothWays(), IDS)
    assert {item.name: Code.NOT_CAUSAL in codes(item) for item in capture} == {"scan": True, "scan@1": True}
    assert capture.skipped == {}


def test_a_layer_with_a_part_that_sees_the_future_is_not_said_to_be_sound():
    # T is causal, and multiplied by what depends on all of the text.
    model = model_of(lambda own, h, v: own.scan(h, v) * own.inner(h), lambda: Own(lambda own, h, v: v.mean(1, True)))
    model.append(model_of(Own.scan)[1])
    assert all(Code.NOT_CAUSAL in codes(item) for item in ss.capture(model, IDS))


class Leaking(nn.Module):
    """Two causal layers, with the mean of all positions added before, between or after them."""

    def __init__(self, place):
        super().__init__()
        self.place, (self.embedding, self.first) = place, model_of(Own.fused)
        self.second = model_of(Own.fused, seed=1)[1]

    def forward(self, ids):
        hidden = self.embedding(ids)
        for place, layer in enumerate((self.first, self.second, nn.Identity())):
            hidden = layer(hidden + hidden.mean(1, keepdim=True) * (place == self.place))
        return hidden


@pytest.mark.parametrize("place", [0, 1, 2, None])
def test_mixing_outside_of_the_layers_is_told(place):
    profile, is_told = ss.profile(Leaking(place), IDS, positions=4), place is not None
    assert len(profile.mixers) == 2
    for name in profile.mixers:
        assert (Code.NOT_CAUSAL in [note.code for note in profile.limits[name]]) == is_told
    assert ("causal" in repr(profile)) == is_told


def test_one_call_of_a_module_is_chosen_by_its_name():
    def names(layers):
        return [item.name for item in ss.capture(BothWays(), IDS, layers)]

    assert names(["scan@1"]) == ["scan@1"]
    assert names("scan") == names(0) == ["scan", "scan@1"]
    with pytest.raises(UnknownLayerError):
        names("scan@2")
