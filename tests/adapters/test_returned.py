"""A mixing is found in whatever structure a layer returns."""

from dataclasses import dataclass
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn

import statesize as ss


@dataclass
class Output:
    state: Tensor
    hidden: Tensor


class Pair(NamedTuple):
    state: Tensor
    hidden: Tensor


WIDTH = 8
RETURNED = {
    "tensor": lambda hidden, **_: hidden,
    "dict": lambda hidden, state, **_: {"state": state, "hidden": hidden},
    "dataclass": lambda hidden, state, **_: Output(state, hidden),
    "named tuple": lambda hidden, state, **_: Pair(state, hidden),
    "state first": lambda hidden, state, **_: (state, hidden),
    "gates first": lambda hidden, gate, **_: (gate, hidden),
    "values first": lambda hidden, values, **_: (values, hidden),
    "nested": lambda hidden, state, **_: (None, {"states": [state], "hidden": Output(state, hidden)}),
}


class Recurrent(nn.Module):
    """A linear recurrence with a gate, or one with a tanh, which has no T."""

    def __init__(self, returned, linear=True):
        super().__init__()
        self.gate, self.value, self.leave = nn.Linear(WIDTH, 1), nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.returned, self.through = returned, nn.Identity() if linear else nn.Tanh()

    def forward(self, hidden):
        gate, values, states = self.gate(hidden).sigmoid(), self.value(hidden), [torch.zeros(WIDTH)]
        for at in range(hidden.shape[1]):
            states.append(self.through(gate[:, at] * states[-1] + values[:, at]))
        hidden = self.leave(torch.stack(states[1:], 1))
        return RETURNED[self.returned](hidden=hidden, state=states[-1], gate=gate, values=values)


class Block(nn.Module):
    def __init__(self, mixer):
        super().__init__()
        self.mixer = mixer

    def forward(self, hidden):
        left = self.mixer(hidden)
        while not isinstance(left, Tensor):
            left = left[-1] if type(left) is tuple else left["hidden"] if isinstance(left, dict) else left.hidden
        return hidden + left


@pytest.mark.parametrize(
    ("returned", "linear"), [*((one, True) for one in RETURNED), ("dataclass", False), ("values first", False)]
)
def test_a_mixing_is_found_in_what_a_layer_returns(returned, linear):
    torch.manual_seed(0)
    plain, model = (
        Recurrent("tensor", linear),
        nn.Sequential(nn.Embedding(30, WIDTH), Block(Recurrent(returned, linear))),
    )
    model[1].mixer.load_state_dict(plain.state_dict())
    tokens = torch.arange(24)[None]
    hidden = model[0](tokens).detach()
    (expected,) = ss.capture(plain, hidden)
    (alone,) = ss.capture(model[1].mixer, hidden)
    (inside,) = ss.capture(model, tokens, layers="1.mixer")
    assert alone.kind == inside.kind == expected.kind == ("Recurrent" if linear else "derivative")
    wanted = ss.measure(expected.operator).entropy
    for found in (alone, inside):
        torch.testing.assert_close(ss.measure(found.operator).entropy, wanted, rtol=1e-6, atol=1e-6)


class Mapped(nn.Module):
    """A map of positions that is returned beside, in a text of as many tokens as channels."""

    def __init__(self):
        super().__init__()
        self.parts = nn.Linear(WIDTH, 3 * WIDTH)

    def forward(self, hidden):
        query, key, value = self.parts(hidden).chunk(3, -1)
        maps = torch.sigmoid(query @ key.mT).tril()
        return maps @ value, maps


def test_a_map_that_is_returned_beside_is_no_second_stream():
    torch.manual_seed(0)
    layer, hidden = Mapped(), torch.randn(1, WIDTH, WIDTH)
    (item,) = ss.capture(layer, hidden)
    torch.testing.assert_close(item.operator.dense()[:, 0].float(), layer(hidden)[1].detach(), rtol=0, atol=1e-6)
