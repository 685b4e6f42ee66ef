"""What depends on later tokens is refused, or said where it lies around what is measured."""

import pytest
import torch
from torch import nn
from torch.nn import functional

import statesize as ss
from statesize.codes import Code, joined
from statesize.errors import InputError

WIDTH = 8


class Decayed(nn.Module):
    """Linear attention with the decay that its model hands it."""

    def __init__(self, width):
        super().__init__()
        self.project = nn.Linear(width, 3 * width)

    def forward(self, hidden, decay):
        query, key, value = self.project(hidden).chunk(3, -1)
        return (query @ key.mT * decay) @ value


class Handing(nn.Module):
    def __init__(self, shape, width):
        super().__init__()
        self.embedding, self.layers = nn.Embedding(100, width), nn.ModuleList([Decayed(width)])
        at = torch.arange(24)
        self.decay = (0.9 ** (at[:, None] - at).clamp(min=0)).tril().expand(*shape, -1, -1)

    def forward(self, tokens):
        return self.layers[0](self.embedding(tokens), self.decay)


@pytest.mark.parametrize("width", [WIDTH, 24])
@pytest.mark.parametrize("shape", [(), (1,)])
def test_a_map_of_positions_that_a_layer_takes_is_none_of_the_text(shape, width):
    model, tokens = Handing(shape, width), torch.arange(24)[None]
    (found,) = ss.capture(model, tokens)
    assert (found.kind, found.units) == ("Decayed", 1)
    query, key, _ = model.layers[0].project(model.embedding(tokens)[0]).detach().double().chunk(3, -1)
    expected = query @ key.mT * model.decay.view(24, 24)
    torch.testing.assert_close(found.operator.dense()[0, 0], expected, rtol=0, atol=1e-6 * float(expected.abs().max()))


class Sum(nn.Module):
    def __init__(self):
        super().__init__()
        self.value, self.decay = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, 1)

    def forward(self, hidden):
        decay, state, outputs = self.decay(hidden).sigmoid(), 0, []
        for step, value in enumerate(self.value(hidden).unbind(1)):
            state = decay[:, step] * state + value
            outputs.append(state)
        return torch.stack(outputs, 1)


class BothWays(nn.Module):
    def __init__(self):
        super().__init__()
        self.scan = Sum()

    def forward(self, hidden):
        return hidden + self.scan(hidden) + self.scan(hidden.flip(1)).flip(1)


def test_scans_of_a_model_that_sees_the_future_elsewhere_say_so():
    model, tokens = nn.Sequential(nn.Embedding(100, WIDTH), BothWays(), BothWays()), torch.arange(24)[None]
    capture = ss.capture(model, tokens)
    notes = {item.name: joined(item.notes) for item in capture}
    assert list(notes) == ["1.scan", "1.scan@1", "2.scan", "2.scan@1"]
    assert capture.skipped == {}
    assert all("The model is not causal: positions are mixed backwards in 1 and 1 more. " in n for n in notes.values())


class FutureGate(nn.Module):
    def forward(self, hidden):
        return (hidden + hidden.mean(1, keepdim=True)).sigmoid()


class GatedByTheFuture(Sum):
    """A layer whose T is causal, with a part that multiplies what the layer takes by what depends on all of it."""

    def __init__(self):
        super().__init__()
        self.gate = FutureGate()

    def forward(self, hidden):
        return super().forward(hidden) * self.gate(hidden)


def test_a_layer_with_a_part_that_sees_the_future_is_not_said_to_be_sound():
    model = nn.Sequential(nn.Embedding(100, WIDTH), Sum(), GatedByTheFuture(), Sum())
    assert all(item.notes[-1].code is Code.NOT_CAUSAL for item in ss.capture(model, torch.arange(24)[None]))


class Attending(nn.Module):
    def forward(self, hidden):
        return functional.scaled_dot_product_attention(*3 * [hidden[:, None]], is_causal=True)[:, 0]


class Leaking(nn.Module):
    """Two causal layers, with the mean of all positions added before, between or after them."""

    def __init__(self, place):
        super().__init__()
        torch.manual_seed(0)
        self.place, self.embedding = place, nn.Embedding(100, WIDTH)
        self.first, self.second = Attending(), Attending()

    def forward(self, ids):
        hidden = self.embedding(ids)
        for place, layer in enumerate((self.first, self.second, nn.Identity())):
            hidden = hidden + hidden.mean(1, keepdim=True) * (place == self.place)
            hidden = layer(hidden)
        return hidden


@pytest.mark.parametrize("place", range(3))
def test_mixing_outside_of_the_layers_is_told(place):
    model, tokens = Leaking(place), torch.arange(24)[None]
    profile = ss.profile(model, tokens, positions=4)
    assert all(Code.NOT_CAUSAL in {note.code for note in profile.limits[name]} for name in profile.mixers)
    assert any("not causal" in limits for limits in profile.summary()["limits"])
    assert "causal" not in repr(ss.profile(Leaking(None), tokens, positions=4))


def test_one_call_of_a_module_is_chosen_by_its_name():
    model, tokens = nn.Sequential(nn.Embedding(100, WIDTH), BothWays()), torch.arange(24)[None]

    def names(layers):
        return [item.name for item in ss.capture(model, tokens, layers)]

    assert names(["1.scan@1"]) == ["1.scan@1"]
    assert names("1.scan") == names(0) == ["1.scan", "1.scan@1"]
    with pytest.raises(InputError, match=r"got '1\.scan@2'"):
        names("1.scan@2")
