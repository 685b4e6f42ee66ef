from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from statesize.adapters.models.model_state import is_a, named_parts
from statesize.adapters.observation import ModuleStack, Observation
from statesize.adapters.replaced import MixerCall, source_of
from statesize.operators import Dense


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


def test_a_mixer_that_is_the_model_goes_by_its_class() -> None:
    seen: list[str] = []
    model = Averager()
    with (
        ModuleStack(named_parts(model), 4).watching() as running,
        source_of(["Averager"], ["enter", "leave"], parse)(
            (), running, lambda make, product=None: seen.append(make().name)
        ),
    ):
        model(torch.ones(1, 4, 1))
    assert seen == ["Averager"]


@pytest.mark.parametrize("failure", [None, ValueError, KeyboardInterrupt])
def test_no_hook_is_left_whatever_happens(failure: type[BaseException] | None) -> None:
    model = Block()

    def record(_: Observation) -> None:
        if failure is not None:
            raise failure

    def run() -> None:
        with (
            ModuleStack(named_parts(model), 4).watching() as running,
            source_of(["Averager"], ["enter", "leave"], parse)((), running, record),
        ):
            model(torch.ones(1, 4, 1))

    if failure is None:
        run()
    else:
        with pytest.raises(failure):
            run()
    assert all(not module._forward_hooks and not module._forward_pre_hooks for module in model.modules())


@pytest.mark.parametrize(("module", "expected"), [(Averager(), True), (Derived(), True), (nn.Identity(), False)])
def test_classes_are_known_by_name_and_by_what_they_derive_from(module: Any, expected: bool) -> None:
    assert is_a(module, ("Averager", "Other")) is expected
