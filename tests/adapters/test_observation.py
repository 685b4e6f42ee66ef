"""The stack of running modules, what a source watches in them, and which units are taken."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from statesize.adapters.models.model_state import named_parts
from statesize.adapters.observation import ModuleStack, Observation, chosen, take
from statesize.adapters.replaced import MixerCall, source_of
from statesize.operators import Dense


class Part(nn.Module):
    def __init__(self, running):
        super().__init__()
        self.running, self.seen, self.error = running, [], None

    def forward(self, hidden, factor=1):
        self.seen.append([frame.name for frame in self.running().frames])
        if self.error is not None:
            raise self.error
        return hidden * factor


class Whole(nn.Module):
    def __init__(self, running):
        super().__init__()
        self.part = Part(running)

    def forward(self, hidden):
        try:
            return self.part(hidden, factor=2)
        except (ValueError, KeyboardInterrupt):
            return "failed"


def test_names_arguments_and_outputs():
    left = []
    model = Whole(lambda: running)
    stack = ModuleStack(
        named_parts(model), 21, on_leave=lambda frame, output: left.append((frame.name, frame.kwargs, output.item()))
    )
    with stack.watching() as running:
        model(torch.tensor(3))
        assert running.frames == []
        model.part(torch.tensor(4))
    assert model.part.seen == [["Whole", "part"], ["part"]]
    assert left == [("part", {"factor": 2}, 6), ("Whole", {}, 6), ("part", {}, 4)]
    model(torch.tensor(3))
    assert model.part.seen[2:] == [[]]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_module_that_fails_is_taken_off(error):
    model = Whole(lambda: running)
    model.part.error = error("broken")
    with ModuleStack(named_parts(model), 21).watching() as running:
        assert model(torch.tensor(3)) == "failed"
        assert running.frames == []


class Averager(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.enter, self.leave = nn.Identity(), nn.Identity()

    def forward(self, hidden: Tensor) -> Tensor:
        return self.leave(self.enter(hidden).cumsum(1))


class Derived(Averager):
    pass


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = Averager(), Derived()

    def forward(self, hidden: Tensor) -> Tensor:
        return self.first(self.second(self.second(hidden)))


def parse(call: MixerCall) -> Observation:
    values, mixed = call.parts["enter"].output, call.parts["leave"].args[0]
    operator = Dense(torch.ones(1, 1, 4, 4).tril())
    return Observation(call.name, "sum", lambda _: operator, values, mixed)


def test_each_call_of_a_mixer_is_observed_while_it_is_innermost() -> None:
    model, seen = Block(), []
    with ModuleStack(named_parts(model), 21).watching() as running:

        def record(make) -> None:
            observation = make()
            seen.append((observation.name, running.frame.name, observation.values[0, 0, 0]))

        with source_of(["Averager"], ["enter", "leave"], parse)((), running, record):
            hidden = torch.ones(1, 4, 1)
            model(hidden)
    # One of them is called twice, and its second input is the sum of its first.
    assert seen == [("second", "second", 1.0), ("second", "second", 1.0), ("first", "first", 1.0)]


@pytest.mark.parametrize("units", [slice(None), slice(1, 4, 2), torch.tensor([4, 0, 4])])
def test_chosen_units_are_taken_in_their_order(units: slice | torch.Tensor) -> None:
    numbers = chosen(units, 5, torch.device("cpu"))
    tensor = torch.arange(30.0, requires_grad=True).reshape(2, 5, 3)
    taken = take(tensor, units, 1)
    assert taken.dtype == torch.float64
    assert taken.requires_grad
    assert torch.equal(taken, tensor[:, numbers].double())
