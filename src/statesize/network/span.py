"""What lies between two modules of a model: past outputs of the first are varied, future outputs of the second read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode

from statesize.adapters.forward import Forward
from statesize.adapters.models.wrapped import named_parts
from statesize.errors import InputError, ModelError


class Span:
    """A model over one sequence, from the outputs of one module to those of another, or to what the last norm takes.

    Attributes:
        start: The name of the first module.
        end: The name of the second; the model's class where its own output is read.
        inputs: The first module's output where nothing is varied, with positions first, (L, …).
        outputs: What is read, with positions first, (L, …).
        returned: What the model returned in the last run.
    """

    returned: Tensor | None

    def __init__(self, forward: Forward, start: str | None, end: str | None, *, own_kernels: bool = False) -> None:
        self._forward, self._own_kernels = forward, own_kernels
        modules = dict(named_parts(forward.model))
        called: list[str] = []
        with ExitStack() as hooks:
            for name, module in modules.items():
                hooks.callback(module.register_forward_pre_hook(_note(called, name)).remove)
            self._compute()
        self.start = start if start is not None else _embedding(forward.model, modules)
        norms = [name for name in called if "norm" in type(modules[name]).__name__.lower()]
        self.end, self._takes = (end, False) if end is not None else (norms[-1] if norms else "", bool(norms))
        for argument, name in (("start", self.start), ("end", self.end)):
            if name not in modules or name not in called:
                known = ", ".join(dict.fromkeys(name for name in called if name))
                raise InputError(f"{argument} must be the name of a module that runs, got {name!r}. It has {known}.")
        self._first, self._last = modules[self.start], modules[self.end]
        self._axis = [0, 0]
        self.inputs, self.outputs = self._read()
        self.end = self.end or type(forward.model).__name__

    def future(self, past: Tensor) -> Tensor:
        """The outputs at positions from i on, (L − i, …), where the inputs at those before are these, (i, …)."""
        return self.outputs_of(torch.cat([past, self.inputs[past.shape[0] :]]))[past.shape[0] :]

    def outputs_of(self, inputs: Tensor) -> Tensor:
        """What is read, (L, …), where the first module's output is this, (L, …)."""
        return self._read(inputs)[1]

    def cutting_modules(self, past: Tensor) -> list[str]:
        """Modules that took something that depends on the past, and by autograd return nothing that does."""
        found: list[str] = []

        def look(name: str, args: tuple[object, ...], output: object) -> None:
            taken = [part for part in args if isinstance(part, Tensor) and part.requires_grad]
            returned = first_tensor(output)
            if taken and returned is not None and returned.is_floating_point() and not returned.requires_grad:
                found.append(name)

        with ExitStack() as hooks:
            for name, module in named_parts(self._forward.model):
                hook = module.register_forward_hook(lambda _, args, output, name=name: look(name, args, output))
                hooks.callback(hook.remove)
            self.future(past.detach().requires_grad_())
        return found

    def _read(self, varied: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Inputs and outputs, positions first, of a run with these inputs (L, …)."""
        seen: dict[str, Tensor] = {}

        def keep(place: int, value: object) -> None:
            tensor = first_tensor(value)
            if tensor is None or not tensor.is_floating_point():
                name = (self.start, self.end)[place]
                raise ModelError(f"Module {name or 'of the model'} must return a tensor of numbers.")
            self._axis[place] = _position_axis((self.start, self.end)[place], tensor, self._forward.length)
            seen["inputs" if place == 0 else "outputs"] = tensor.squeeze(1 - self._axis[place])

        def enter(module: nn.Module, args: tuple[object, ...], output: object) -> object:
            if varied is None:
                keep(0, output)
                return None
            return _replaced(output, varied.unsqueeze(1 - self._axis[0]))

        def take(module: nn.Module, args: tuple[object, ...], kwargs: dict[str, object]) -> None:
            keep(1, args or tuple(kwargs.values()))

        with ExitStack() as hooks:
            hooks.callback(self._first.register_forward_hook(enter).remove)
            if self._takes:
                hooks.callback(self._last.register_forward_pre_hook(take, with_kwargs=True).remove)
            else:
                hooks.callback(self._last.register_forward_hook(lambda _, __, output: keep(1, output)).remove)
            self._compute()
        return seen.get("inputs", self.inputs if varied is not None else torch.empty(0)), seen["outputs"]

    def _compute(self) -> None:
        with ExitStack() as changes:
            if not self._own_kernels:
                # The other kernels of this function have neither forward mode nor double backward.
                changes.enter_context(cast("Any", sdpa_kernel(SDPBackend.MATH)))
                if next(self._forward.model.parameters()).dtype is torch.float64:
                    changes.enter_context(_InDouble())
            self.returned = first_tensor(self._forward.backbone(*self._forward.args, **self._forward.kwargs))


class _InDouble(TorchFunctionMode):
    """Single precision that a model asks for is double precision, as in norms that compute in float32."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is Tensor.float:
            return args[0].double()
        named = {name: _double(value) for name, value in (kwargs or {}).items()}
        return func(*(_double(value) for value in args), **named)


def _double(value: Any) -> Any:
    return torch.float64 if value is torch.float32 else value


def _note(called: list[str], name: str) -> Callable[..., None]:
    return lambda *given: called.append(name)


def first_tensor(value: object) -> Tensor | None:
    """A tensor, or the first one of a tuple, list or mapping, however deep."""
    if isinstance(value, Tensor):
        return value
    if isinstance(value, Mapping):
        value = list(cast("Mapping[str, object]", value).values())
    if not isinstance(value, tuple | list):
        return None
    parts = cast("list[object]", value)
    return next((found for part in parts if (found := first_tensor(part)) is not None), None)


def _replaced(value: Any, tensor: Tensor) -> Any:
    """A value with another first tensor."""
    if isinstance(value, Tensor):
        return tensor
    if isinstance(value, Mapping):
        given = cast("Mapping[str, Any]", value)
        changed: Any = cast("Any", type(given))(**given)
        name = next(name for name, part in changed.items() if first_tensor(part) is not None)
        changed[name] = _replaced(changed[name], tensor)
        return changed
    place = next(place for place, part in enumerate(value) if first_tensor(part) is not None)
    parts = [*value[:place], _replaced(value[place], tensor), *value[place + 1 :]]
    return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)


def _embedding(model: nn.Module, modules: Mapping[str, nn.Module]) -> str:
    """The module that looks up token ids."""
    get = getattr(model, "get_input_embeddings", None)
    given = get() if callable(get) else None
    for name, module in modules.items():
        if module is given or (given is None and isinstance(module, nn.Embedding)):
            return name
    raise InputError(f"start must be the name of a module, as {type(model).__name__} has no embedding of tokens.")


def _position_axis(name: str, tensor: Tensor, length: int) -> int:
    """Which of the first two dimensions counts positions; the other one counts the only sequence."""
    shape = tuple(tensor.shape)
    for axis in (1, 0):
        if len(shape) >= 2 and shape[axis] == length and shape[1 - axis] == 1:
            return axis
    raise ModelError(
        f"Module {name or 'of the model'} must return a tensor of shape (1, {length}, …) or ({length}, 1, …), got "
        f"{shape}. Name another module."
    )
