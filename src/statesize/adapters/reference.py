"""What the unaltered model computes: one run with nothing attached, and one whose hooks only read."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

from torch import Tensor, nn

from statesize.adapters.calls import Call, Copies, first_argument, sampled
from statesize.adapters.faithfulness import relative_difference
from statesize.adapters.models.forward import Inputs, last_hidden_state, measuring
from statesize.adapters.watching.interrupts import interrupts_held
from statesize.errors import ModelError


def unattached_run(model: nn.Module, backbone: nn.Module, inputs: Inputs) -> Tensor | None:
    """Run a model with no hook, function or configuration changed.

    Args:
        model: Any module.
        backbone: The part of it that is run.
        inputs: What its forward takes.

    Returns:
        The last hidden state, or None where the model returns no tensor.
    """
    with interrupts_held() as interrupts, measuring(model), interrupts.let_through():
        return last_hidden_state(backbone, inputs)


def read_calls(model: nn.Module, backbone: nn.Module, inputs: Inputs, calls: Sequence[Call]) -> Tensor | None:
    """Run a model with hooks that only read, and keep what its mixers were called with and returned.

    Args:
        model: Any module.
        backbone: The part of it that is run.
        inputs: What its forward takes.
        calls: Calls of an observed run of the same inputs; their arguments and outputs become those of this run.

    Returns:
        The last hidden state, or None where the model returns no tensor.

    Raises:
        ModelError: A mixer was called more or less often than in the observed run.
    """
    copies = Copies()
    expected = {module: [call for call in calls if call.module is module] for module in {call.module for call in calls}}
    entered: dict[nn.Module, int] = dict.fromkeys(expected, 0)
    left: dict[nn.Module, int] = dict.fromkeys(expected, 0)

    def at(module: nn.Module, times: dict[nn.Module, int]) -> Call | None:
        times[module] += 1
        return next(iter(expected[module][times[module] - 1 :]), None)

    def enter(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        call = at(module, entered)
        if call is not None and call.mixers:
            call.args, call.kwargs = copies.of(args), copies.of(kwargs)
        elif call is not None:
            call.args = (copies.of(first_argument(call.name, args, kwargs)),)

    def leave(module: nn.Module, args: tuple[Any, ...], output: object) -> None:
        call = at(module, left)
        if call is not None:
            call.output = sampled(output)

    with interrupts_held() as interrupts, ExitStack() as hooks:
        hooks.enter_context(measuring(model))
        for module in expected:
            hooks.callback(module.register_forward_pre_hook(enter, with_kwargs=True).remove)
            hooks.callback(module.register_forward_hook(leave).remove)
        with interrupts.let_through():
            hidden = last_hidden_state(backbone, inputs)
    for module, of_module in expected.items():
        if entered[module] != len(of_module):
            raise ModelError(
                f"Mixer {of_module[0].name} ran {len(of_module)} times in the observed run and {entered[module]} times "
                "in another run of the same inputs: the model is not deterministic, so that it cannot be measured."
            )
    return hidden


def check_deterministic(model: nn.Module, unattached: Tensor | None, read: Tensor | None) -> None:
    """Refuse a model whose run with hooks that only read is not the run without any.

    Args:
        model: The model, for the message.
        unattached: Last hidden state of the run with nothing attached.
        read: That of the run with hooks that only read.

    Raises:
        ModelError: They are not the same bit for bit.
    """
    if unattached is None or read is None or bool(((unattached == read) | (unattached.isnan() & read.isnan())).all()):
        return
    raise ModelError(
        f"{type(model).__name__} gives another last hidden state when it runs the same inputs once more, so there is "
        "no reference to compare with. Make it deterministic: no dropout or noise in eval mode, no state of its own "
        "from call to call, torch.use_deterministic_algorithms(True) on a GPU."
    )


def first_difference(calls: Sequence[Call], observed: Sequence[Tensor | None], limit: float) -> str | None:
    """The first mixer whose output in the observed run is not that of the unaltered model.

    Args:
        calls: The calls, with outputs of the unaltered model.
        observed: Their outputs in the observed run.
        limit: The relative difference from which on they are not the same.

    Returns:
        Its name, or None.
    """
    for call, output in zip(calls, observed, strict=True):
        if output is not None and call.output is not None and not relative_difference(output, call.output) <= limit:
            return call.name
    return None
