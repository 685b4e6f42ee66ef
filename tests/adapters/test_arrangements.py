"""In whatever order a layer takes and returns texts, positions, channels and streams, T is that of its mixing."""

from dataclasses import dataclass
from typing import NamedTuple

import pytest
import torch
from oracles.own_layers import HEADS, TEXT, WIDTH, Own, lag, merged, model_of, parts, wide
from torch import Tensor, nn

import statesize as ss
from statesize.adapters.module_call import _axis


def flattened(own, hidden, value):
    """Attention whose maps have one dimension for heads and texts."""
    query, key, value = (part.flatten(0, 1) for part in parts(own, hidden, value))
    weights = (torch.bmm(query, key.mT) / 2).masked_fill(lag(hidden) < 0, -torch.inf).softmax(-1)
    return merged(torch.bmm(weights, value).unflatten(0, (-1, HEADS)))


class Arranged(Own):
    """A layer that takes what a model hands it, in an order of dimensions."""

    def forward(self, first, second=None):
        texts, back = {
            "positions first": lambda: (first.transpose(0, 1), lambda mixed: mixed.transpose(0, 1)),
            "channels first": lambda: (first.mT, lambda mixed: mixed.mT),
            "positions beside": lambda: (second, lambda mixed: mixed),
            "a map beside": lambda: (second, lambda mixed: mixed),
            "rows": lambda: (second.unflatten(0, (first, -1)), lambda mixed: mixed.flatten(0, 1)),
            "one text": lambda: (first[None], lambda mixed: mixed[0]),
        }[self.arranged]()
        return back(self.output(self.mixed(self, texts, self.value(texts))))


class Arranging(nn.Module):
    """A model that hands it so."""

    def __init__(self, mixed, arranged):
        super().__init__()
        self.embedding, self.layer = model_of(mixed, layer=Arranged)
        self.layer.arranged = self.arranged = arranged

    def forward(self, ids):
        hidden, length = self.embedding(ids), ids.shape[1]
        return {
            "positions first": lambda: self.layer(hidden.transpose(0, 1)).transpose(0, 1),
            "channels first": lambda: self.layer(hidden.mT).mT,
            "positions beside": lambda: self.layer(torch.arange(float(length)), hidden),
            "a map beside": lambda: self.layer(torch.ones(1, length, length).tril(), hidden),
            "rows": lambda: self.layer(len(ids), hidden.flatten(0, 1)).unflatten(0, ids.shape),
            "one text": lambda: torch.stack([self.layer(text) for text in hidden]),
        }[self.arranged]()


ARRANGED = ["positions first", "channels first", "positions beside", "a map beside", "rows", "one text"]


# As many tokens as channels, and as many texts too.
@pytest.mark.parametrize(("texts", "length"), [(2, 21), (1, 8), (8, 8)])
@pytest.mark.parametrize("arranged", ARRANGED)
@pytest.mark.parametrize(
    ("mixed", "definition"),
    [
        (flattened, Own.maps),
        (Own.fused, Own.maps),
        (Own.scan, Own.fading),
        (lambda own, hidden, value: own.convolved(value), Own.taps),
    ],
    ids=["flattened", "fused", "scan", "convolution"],
)
def test_t_is_that_of_the_mixing_in_every_arrangement(mixed, definition, arranged, texts, length):
    model = Arranging(mixed, arranged)
    ids = torch.randint(50, (texts, length), generator=torch.Generator().manual_seed(5))
    items = list(ss.capture(model, ids))
    expected = definition(model.layer, model.embedding(ids)).detach().expand(texts, -1, -1, -1)
    assert len(items) == (texts if arranged == "one text" else 1)
    found = torch.cat([wide(item.operator.dense()) for item in items])
    torch.testing.assert_close(found, wide(expected), rtol=0, atol=1e-9)


@pytest.mark.parametrize(("mixed", "definition"), [(Own.fused, Own.maps), (Own.scan, Own.fading)])
def test_frames_of_as_many_channels_as_positions_have_the_axis_that_is_given(mixed, definition):
    layer = Arranging(mixed, "channels first").layer
    frames = torch.randn(2, WIDTH, WIDTH, generator=torch.Generator().manual_seed(0)).double()
    (item,) = ss.capture(layer, frames, axis=2)
    expected = definition(layer, frames.mT)
    torch.testing.assert_close(wide(item.operator.dense()), wide(expected), rtol=0, atol=1e-9)


@pytest.mark.parametrize(("off", "axis"), [(0, 2), (9e-6, 2), (2e-5, 1)])
def test_the_dimension_along_which_only_rounding_changes_before_the_cut_is_that_of_positions(off, axis):
    one, changed = torch.ones(1, 16, 16), torch.zeros(16)
    changed[0], changed[8:] = off, 1.0
    assert _axis(one, one + changed, 16, 8) == axis


@dataclass
class Output:
    state: Tensor
    hidden: Tensor


class Pair(NamedTuple):
    state: Tensor
    hidden: Tensor


RETURNED = {
    "a dict": lambda own, hidden, mixed: {"state": mixed[:, -1], "hidden": mixed},
    "a dataclass": lambda own, hidden, mixed: Output(mixed[:, -1], mixed),
    "a named tuple": lambda own, hidden, mixed: Pair(mixed[:, -1], mixed),
    "a state first": lambda own, hidden, mixed: (mixed[:, -1], mixed),
    "gates first": lambda own, hidden, mixed: (own.choice(hidden), mixed),
    "values first": lambda own, hidden, mixed: (own.value(hidden), mixed),
    "a map beside": lambda own, hidden, mixed: (mixed, own.maps(hidden).sum(1)),
    "nested": lambda own, hidden, mixed: (None, {"states": [mixed[:, -1]], "hidden": Output(mixed[:, -1], mixed)}),
}


class Returning(Own):
    """A layer that returns what it mixes among other things."""

    def forward(self, hidden):
        return RETURNED[self.returned](self, hidden, super().forward(hidden))


class Unpacking(nn.Module):
    """A block that looks for it there."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, hidden):
        left = self.layer(hidden)
        while not isinstance(left, Tensor):
            if type(left) is tuple:
                left = left[0 if self.layer.returned == "a map beside" else -1]
            else:
                left = left["hidden"] if isinstance(left, dict) else left.hidden
        return hidden + left


@pytest.mark.parametrize(
    ("returned", "mixed"),
    [
        *((name, Own.scan) for name in RETURNED),
        ("a dataclass", lambda own, hidden, value: own.scan(hidden, value).cummax(1)[0]),
    ],
)
def test_a_mixing_is_found_in_what_a_layer_returns(returned, mixed):
    model, plain = model_of(mixed, layer=Returning), model_of(mixed)
    model[1].returned, text = returned, TEXT[:, :WIDTH]
    (expected,) = ss.capture(plain, text)
    (alone,) = ss.capture(model[1], model[0](text))
    (inside,) = ss.capture(nn.Sequential(model[0], Unpacking(model[1])), text, layers="1.layer")
    for found in (alone, inside):
        assert (found.kind == "derivative") == (expected.kind == "derivative")
        torch.testing.assert_close(found.operator.dense(), expected.operator.dense(), rtol=0, atol=1e-9)
