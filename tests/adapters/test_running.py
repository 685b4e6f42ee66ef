"""The stack of running modules."""

import pytest
import torch
from torch import nn

from statesize.adapters.models.model_state import named_parts
from statesize.adapters.observation import ModuleStack


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
