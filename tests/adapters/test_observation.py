"""The stack of running modules, what sources watch in them, and calls of functions in place of which others stand."""

import functools
import inspect
import sys
from dataclasses import replace

import pytest
import torch
from torch import nn

from statesize.adapters.models.model_state import named_parts
from statesize.adapters.observation import Frame, ModuleStack, chosen, take
from statesize.adapters.replaced import observed, pure_torch, source_files


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


def test_names_arguments_and_outputs_also_of_a_module_that_fails():
    left, model = [], Whole(lambda: running)

    def leave(frame, output):
        left.append((frame.name, frame.kwargs, output))

    with ModuleStack(named_parts(model), 21, on_leave=leave).watching() as running:
        assert model(3) == 6
        model.part(4)
        for error in (ValueError("broken"), KeyboardInterrupt()):
            model.part.error = error
            assert model(3) == "failed"
            assert running.frames == []
    inside = ["Whole", "part"]
    assert model.part.seen == [inside, ["part"], inside, inside]
    assert left[:3] == [("part", {"factor": 2}, 6), ("Whole", {}, 6), ("part", {}, 4)]
    model(3)
    assert model.part.seen[4:] == [[]]


@pytest.mark.parametrize("units", [slice(None), slice(1, 4, 2), torch.tensor([4, 0, 4])])
def test_chosen_units_are_taken_in_their_order(units):
    numbers = chosen(units, 5, torch.device("cpu"))
    tensor = torch.arange(30.0, requires_grad=True).reshape(2, 5, 3)
    taken = take(tensor, units, 1)
    assert (taken.dtype, taken.requires_grad) == (torch.float64, True)
    assert torch.equal(taken, tensor[:, numbers].double())


def double(values, times=2, **kwargs):
    return times * values, None


@functools.wraps(double)
def compiled(*args, **kwargs):
    # It rounds to other numbers than the function below it.
    return double(*args, **kwargs)[0] + 1, None


def as_module(function):
    # As the kernels package wraps functions for which it may fetch a kernel.
    class Func(nn.Module):
        def forward(self, *args, **kwargs):
            return function(*args, **kwargs)

    return Func()


@pytest.mark.parametrize("function", [double, compiled, as_module(compiled), as_module(double)])
def test_below_a_compiled_kernel_is_the_function_of_the_source_file(function):
    assert pure_torch(function) is double


@pytest.mark.parametrize("exact", [False, True])
def test_a_call_is_reported_with_all_arguments_by_name_to_each_that_observes_it(exact):
    # No module is watched, and the calls are of none.
    frames = [Frame("", nn.Identity(), (), {})]
    running = replace(ModuleStack(named_parts(nn.Identity()), 0, frames=frames), exact=exact)
    seen, values = [], torch.ones(2)
    kernel = observed(compiled, running, lambda call: seen.append((dict(call.arguments), call.output)))
    outer = observed(kernel, running, lambda _: seen.append("outer"))
    assert inspect.signature(outer) == inspect.signature(double)
    result, rest = outer(values, unknown=3)
    # What the model runs is observed, and below it what knows float64.
    assert (result.tolist(), rest) == ([2.0, 2.0] if exact else [3.0, 3.0], None)
    (arguments, output), last = seen
    assert (output is result, last) == (True, "outer")
    assert (arguments["values"] is values, arguments["times"], arguments["unknown"]) == (True, 2, 3)


def test_source_files_are_those_of_every_part_and_of_their_base_classes():
    class Own(nn.Linear):
        pass

    model = nn.Sequential(Own(2, 2), nn.Conv1d(2, 2, 1))
    names = [file.__name__ for file in source_files(named_parts(model))]
    assert {__name__, "torch.nn.modules.linear", "torch.nn.modules.conv"} <= {*names} & sys.modules.keys()
    assert len(names) == len(set(names))
