from __future__ import annotations

import functools
import inspect
import sys
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from statesize.adapters.models.model_state import named_parts
from statesize.adapters.observation import Frame, ModuleStack
from statesize.adapters.replaced import ReplacedCall, observed, pure_torch, source_files
from statesize.errors import ModelError

# No module is watched, and the calls are of none.
RUNNING = ModuleStack(named_parts(nn.Identity()), 0, frames=[Frame("", nn.Identity(), (), {})])


def double(values: Tensor, times: int = 2, **kwargs: Any) -> tuple[Tensor, None]:
    return times * values, None


@functools.wraps(double)
def compiled(*args: Any, **kwargs: Any) -> tuple[Tensor, None]:
    # It rounds to other numbers than the function below it.
    return double(*args, **kwargs)[0] + 1, None


def as_module(function: Any) -> nn.Module:
    # As the kernels package wraps functions for which it may fetch a kernel.
    class Func(nn.Module):
        def forward(self, *args: Any, **kwargs: Any) -> Any:
            return function(*args, **kwargs)

    return Func()


@pytest.mark.parametrize("function", [double, compiled, as_module(compiled), as_module(double)])
def test_below_a_compiled_kernel_is_the_function_of_the_source_file(function: Any) -> None:
    assert pure_torch(function) is double


@pytest.mark.parametrize("exact", [False, True])
def test_a_call_is_reported_with_all_arguments_by_name(exact: bool) -> None:
    seen: list[Any] = []
    running = replace(RUNNING, exact=exact)
    kernel = observed(compiled, running, lambda call: seen.append((dict(call.arguments), call.output)))
    values = torch.ones(2)
    result = kernel(values, unknown=3)
    # What the model runs is observed, and below it what knows float64.
    assert torch.equal(result[0], torch.full((2,), 2.0 if exact else 3.0))
    assert result[1] is None
    ((arguments, output),) = seen
    assert output is result[0]
    assert (arguments["values"] is values, arguments["times"], arguments["unknown"]) == (True, 2, 3)


def test_an_observed_function_can_be_observed_again() -> None:
    seen: list[str] = []
    inner = observed(compiled, RUNNING, lambda *_: seen.append("inner"))
    outer = observed(inner, RUNNING, lambda *_: seen.append("outer"))
    assert inspect.signature(outer) == inspect.signature(double)
    outer(torch.ones(1))
    assert seen == ["inner", "outer"]


def test_source_files_are_those_of_every_part_and_of_their_base_classes() -> None:
    class Own(nn.Linear):
        pass

    model = nn.Sequential(Own(2, 2), nn.Conv1d(2, 2, 1))
    names = [file.__name__ for file in source_files(named_parts(model))]
    assert {__name__, "torch.nn.modules.linear", "torch.nn.modules.conv"} <= {*names} & sys.modules.keys()
    assert len(names) == len(set(names))


def test_a_call_that_goes_on_from_a_state_is_refused_by_name() -> None:
    call = ReplacedCall("layers.3.mixer", nn.Identity(), {"initial_states": torch.zeros(1)}, torch.zeros(1))
    call.require_no_state("state")
    with pytest.raises(ModelError, match=r"layers\.3\.mixer was called with an initial state \(initial_states\)"):
        call.require_no_state("initial_states")
