"""What depends on later tokens is said where it lies around what is measured."""

import pytest
from oracles.own_layers import TEXT, Own, model_of
from torch import nn

import statesize as ss
from statesize.adapters.select import UnknownLayerError
from statesize.codes import Code

IDS = TEXT[:1]


class BothWays(nn.Module):
    def __init__(self, scan):
        super().__init__()
        self.scan = scan

    def forward(self, hidden):
        return hidden + self.scan(hidden) + self.scan(hidden.flip(1)).flip(1)


def both_ways():
    embedding, scan = model_of(Own.scan)
    return nn.Sequential(embedding, BothWays(scan))


def codes(item):
    return {note.code for note in item.notes}


def test_scans_of_a_model_that_sees_the_future_elsewhere_say_so():
    capture = ss.capture(both_ways(), IDS)
    assert {item.name: Code.NOT_CAUSAL in codes(item) for item in capture} == {"1.scan": True, "1.scan@1": True}
    assert capture.skipped == {}


class FutureGate(nn.Module):
    def forward(self, hidden):
        return (hidden + hidden.mean(1, keepdim=True)).sigmoid()


def test_a_layer_with_a_part_that_sees_the_future_is_not_said_to_be_sound():
    # T is causal, and multiplied by what depends on all of the text.
    model = model_of(lambda own, hidden, value: own.scan(hidden, value) * own.inner(hidden), FutureGate)
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
        assert (Code.NOT_CAUSAL in {note.code for note in profile.limits[name]}) == is_told
    assert ("causal" in repr(profile)) == is_told


def test_one_call_of_a_module_is_chosen_by_its_name():
    def names(layers):
        return [item.name for item in ss.capture(both_ways(), IDS, layers)]

    assert names(["1.scan@1"]) == ["1.scan@1"]
    assert names("1.scan") == names(0) == ["1.scan", "1.scan@1"]
    with pytest.raises(UnknownLayerError):
        names("1.scan@2")
