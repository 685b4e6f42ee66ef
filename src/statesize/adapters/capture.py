"""Capture the operators of a model whose mixers know them: any module with a method `operator(hidden)`."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from operator import index as whole_number
from typing import Any, SupportsIndex, cast

import torch
from torch import Tensor, nn

from statesize.errors import InputError, ModelError
from statesize.operators import Operator


@dataclass(frozen=True)
class Captured:
    """One mixer's operator at one input.

    Attributes:
        name: The mixer's module name in the model; a second call in the same forward pass adds "@1", a third "@2".
        kind: What the mixer is, such as "sa" or "gla".
        operator: T at this input, batch shape (sequence, head) or (sequence, channel).
        multiplicity: How many channels share one operator.
    """

    name: str
    kind: str
    operator: Operator
    multiplicity: int


def find_mixers(model: nn.Module) -> dict[str, nn.Module]:
    """The mixers of a model by module name, in the order in which the model registers them.

    A mixer is a module whose class has a method `operator`; one that lies inside another mixer is part of it.

    Args:
        model: Any module.

    Returns:
        Mixers by module name; a model that is itself a mixer goes by the name of its class.
    """
    found: dict[str, nn.Module] = {}
    modules = cast("Iterator[tuple[str, nn.Module]]", model.named_modules())
    for name, module in modules:
        if not callable(getattr(type(module), "operator", None)):
            continue
        inside = "" in found or any(name.startswith(f"{outer}.") for outer in found)
        if not inside:
            found[name] = module
    return {name or type(model).__name__: module for name, module in found.items()}


def select_mixers(model: nn.Module, layers: int | str | Sequence[int | str] | None = None) -> dict[str, nn.Module]:
    """The mixers of a model that a choice of layers means.

    Args:
        model: Any module.
        layers: Mixers by index or module name, one or several; None takes all.

    Returns:
        Mixers by module name, each once, in the order in which the model registers them.

    Raises:
        ModelError: If the model has no mixer.
        InputError: If a chosen mixer is not there, or `layers` is no choice at all.
    """
    mixers = find_mixers(model)
    if not mixers:
        raise ModelError(
            f"{type(model).__name__} has no mixer that statesize can measure: none of its modules has a method "
            "`operator(hidden)`. Give your layer one that returns a statesize Operator for what its forward receives."
        )
    if layers is None:
        return mixers
    names = list(mixers)
    chosen = _listed(layers)
    if not chosen:
        raise InputError(f"layers is empty; give indices or names, or None for all. Mixers: {', '.join(names)}.")
    selected: set[str] = set()
    for layer in chosen:
        index = _integer(layer)
        if isinstance(layer, str) and layer in mixers:
            selected.add(layer)
        elif index is not None and -len(names) <= index < len(names):
            selected.add(names[index])
        else:
            raise InputError(
                f"layers has {layer!r}, but the model's {len(names)} mixers are {', '.join(names)}; "
                f"choose by name or by index 0 … {len(names) - 1}."
            )
    return {name: mixers[name] for name in names if name in selected}


def _listed(layers: object) -> list[object]:
    if isinstance(layers, str):
        return [layers]
    try:
        return list(cast("Iterable[object]", layers))
    except TypeError:
        # Whatever is no list is one choice, and refused like a wrong entry of a list where it is not an integer.
        return [layers]


def _integer(value: object) -> int | None:
    try:
        return None if isinstance(value, bool) else whole_number(cast("SupportsIndex", value))
    except TypeError:
        return None


def capture(
    model: nn.Module, input_ids: Tensor, layers: int | str | Sequence[int | str] | None = None
) -> Iterator[Captured]:
    """Run a model once and yield the operator of each of its mixers, one at a time.

    The forward pass runs at once, in eval mode and without gradients; it keeps what entered each mixer. An operator
    is built when the iterator reaches it, so only one is alive at a time unless the caller keeps them. The model's
    training mode and hooks are as before when this returns or raises. Its weights must not change while the
    iterator is in use. Raises InputError where `layers` selects a mixer that is not there, and ModelError where the
    model has no mixer or weights of fewer than 32 bits.

    Args:
        model: A model of which some modules have a method `operator(hidden) -> Operator`, where `hidden` is the
            first argument of their forward.
        input_ids: What the model's forward takes, such as token ids (S, L); moved to the model's device.
        layers: Mixers to capture, by index or module name, one or several; None takes all.

    Returns:
        An iterator of Captured, in the order in which the model calls its mixers.

    Raises:
        ModelError: If a selected mixer is not called.
    """
    mixers = select_mixers(model, layers)
    _check_precision(model)
    calls = _record_inputs(model, mixers, input_ids)
    called = {name for name, _ in calls}
    missing = [name for name in mixers if name not in called]
    if missing and (layers is not None or not called):
        raise ModelError(
            f"The forward pass of {type(model).__name__} never called {', '.join(missing)}: there is nothing to "
            "measure. Choose other layers, or call the model in a way that uses them."
        )
    return _operators(mixers, calls)


def _check_precision(model: nn.Module) -> None:
    for name, parameter in model.named_parameters():
        if parameter.is_floating_point() and torch.finfo(parameter.dtype).bits < 32:
            raise ModelError(
                f"Parameter {name} is {str(parameter.dtype).removeprefix('torch.')}: the rounding of fewer than 32 "
                "bits shows up as state that is not there. Call model.float() first."
            )


def _record_inputs(model: nn.Module, mixers: dict[str, nn.Module], input_ids: Tensor) -> list[tuple[str, Tensor]]:
    calls: list[tuple[str, Tensor]] = []

    def recorder(name: str) -> Callable[..., None]:
        def record(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            hidden: object = args[0] if args else next(iter(kwargs.values()), None)
            if not isinstance(hidden, Tensor):
                raise ModelError(
                    f"Mixer {name} was called with {type(hidden).__name__} as its first argument, "
                    "but a tensor of hidden states is expected there."
                )
            # A copy, because a block may add to its hidden states in place.
            calls.append((name, hidden.detach().clone()))

        return record

    with ExitStack() as stack, _evaluating(model), torch.no_grad():
        for name, mixer in mixers.items():
            stack.callback(mixer.register_forward_pre_hook(recorder(name), with_kwargs=True).remove)
        model(input_ids.to(_device(model)))
    return calls


def _device(model: nn.Module) -> torch.device:
    tensor = next(model.parameters(), None)
    if tensor is None:
        tensor = next(model.buffers(), None)
    return torch.device("cpu") if tensor is None else tensor.device


@contextmanager
def _evaluating(model: nn.Module) -> Generator[None]:
    # One flag a module: model.train(True) would also switch on parts that were frozen in eval mode.
    modes = [(module, module.training) for module in model.modules()]
    try:
        model.eval()
        yield
    finally:
        for module, training in modes:
            module.training = training


def _operators(mixers: dict[str, nn.Module], calls: list[tuple[str, Tensor]]) -> Iterator[Captured]:
    times: dict[str, int] = {}
    while calls:
        name, hidden = calls.pop(0)
        count = times[name] = times.get(name, -1) + 1
        label = f"{name}@{count}" if count else name
        # The operator has no name here: the yielded value must hold the only reference.
        yield _captured(label, mixers[name], hidden)


def _captured(name: str, mixer: nn.Module, hidden: Tensor) -> Captured:
    try:
        with _evaluating(mixer), torch.no_grad():
            operator = cast("Callable[[Tensor], object]", mixer.operator)(hidden)
    except InputError as error:
        raise InputError(f"Mixer {name} (indices are sequence, head, position, …): {error}") from error
    if not isinstance(operator, Operator):
        raise ModelError(
            f"Mixer {name}: operator(hidden) returned {type(operator).__name__}, not a statesize Operator."
        )
    if len(operator.batch_shape) != 2 or operator.batch_shape[0] != hidden.shape[0]:
        raise ModelError(
            f"Mixer {name}: operator(hidden) has batch shape {tuple(operator.batch_shape)}, but (sequence, head) "
            f"with {hidden.shape[0]} sequences is expected."
        )
    if hidden.ndim < 2 or operator.length != hidden.shape[1]:
        raise ModelError(
            f"Mixer {name}: operator(hidden) has length {operator.length}, but its forward received hidden states of "
            f"shape {tuple(hidden.shape)}; (sequence, {operator.length}, …) is expected for it."
        )
    _check_finite(name, operator)
    kind = str(getattr(mixer, "kind", type(mixer).__name__))
    return Captured(name, kind, operator, int(getattr(mixer, "multiplicity", 1)))


def _check_finite(name: str, operator: Operator) -> None:
    for tensor in vars(operator).values():
        if not isinstance(tensor, Tensor) or tensor.ndim < 3 or bool(torch.isfinite(tensor).all()):
            continue
        bad = ~torch.isfinite(tensor)
        sequence, head, position = (int(index) for index in bad.nonzero()[0, :3])
        raise InputError(
            f"Mixer {name}, sequence {sequence}, head {head}: the operator has NaN or infinity, first at position "
            f"{position}. Check the model's weights and inputs for values that are not finite."
        )
