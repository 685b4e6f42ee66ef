"""The stack of running modules."""

import pytest
import torch
from torch import nn

from statesize.adapters.running import running_modules


class Part(nn.Module):
    def __init__(self, running):
        super().__init__()
        self.running, self.seen, self.broken = running, [], False

    def forward(self, hidden, factor=1):
        self.seen.append([frame.name for frame in self.running().frames])
        if self.broken:
            raise ValueError("broken")
        return hidden * factor


class Whole(nn.Module):
    def __init__(self, running):
        super().__init__()
        self.part = Part(running)

    def forward(self, hidden):
        try:
            return self.part(hidden, factor=2)
        except ValueError:
            return self.part.running().name


def test_names_arguments_and_outputs():
    left = []
    model = Whole(lambda: running)
    with running_modules(
        model, lambda frame, output: left.append((frame.name, frame.kwargs, output.item()))
    ) as running:
        model(torch.tensor(3))
        assert running.frames == []
        model.part(torch.tensor(4))
    assert model.part.seen == [["Whole", "part"], ["part"]]
    assert left == [("part", {"factor": 2}, 6), ("Whole", {}, 6), ("part", {}, 4)]
    model(torch.tensor(3))
    assert model.part.seen[2:] == [[]]


def test_a_module_that_fails_is_taken_off():
    model = Whole(lambda: running)
    model.part.broken = True
    with running_modules(model) as running:
        assert model(torch.tensor(3)) == "Whole"
        with pytest.raises(ValueError, match="broken"):
            model.part(torch.tensor(3))
        assert running.frames == []
