"""The part of a model between two modules: a function from past outputs of the first to future ones of the second."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack, nullcontext
from typing import Any, cast

import torch
from torch import Tensor, nn

from statesize.adapters.forward import Forward
from statesize.adapters.models.held import named_parts
from statesize.adapters.models.in_double import differentiable
from statesize.errors import InputError, ModelError


class Span:
    """A model over one sequence, from the outputs of one module to those of another, or to the inputs of the last norm.

    Attributes:
        start: The name of the first module.
        end: The name of the second; the model's class if the output is that of the model.
        inputs: The unchanged output of the first module, with positions first, (L, …).
        outputs: The outputs of the span, with positions first, (L, …).
        returned: The result of the model in the last run.
    """

    inputs: Tensor
    returned: Tensor | None

    def __init__(self, forward: Forward, start: str | None, end: str | None, *, own_kernels: bool = False) -> None:
        self._forward, self._own_kernels = forward, own_kernels
        modules = dict(named_parts(forward.model))
        called: list[str] = []
        names = {module: name for name, module in modules.items()}
        with ExitStack() as hooks:
            for module in names:
                hooks.callback(module.register_forward_pre_hook(lambda module, _: called.append(names[module])).remove)
            self._run()
        self.start = start if start is not None else _embedding(forward.model, modules)
        norms = [name for name in called if "norm" in type(modules[name]).__name__.lower()]
        # Without `end` the outputs are the inputs of the last norm, or those of the model if it has no norm.
        self._reads_input = end is None and bool(norms)
        self.end = end if end is not None else norms[-1] if norms else ""
        for argument, name in (("start", self.start), ("end", self.end)):
            if name not in modules or name not in called:
                known = ", ".join(dict.fromkeys(name for name in called if name))
                raise InputError(f"{argument} must be the name of a module that runs, got {name!r}. It has {known}.")
        self._first, self._last = modules[self.start], modules[self.end]
        self._axis = 0
        self.outputs = self._read()
        self.end = self.end or type(forward.model).__name__

    def future(self, past: Tensor) -> Tensor:
        """The outputs at positions from i on, (L − i, …), for other inputs before i, (i, …)."""
        return self.outputs_of(torch.cat([past, self.inputs[past.shape[0] :]]))[past.shape[0] :]

    def outputs_of(self, inputs: Tensor) -> Tensor:
        """The outputs for other inputs, both (L, …)."""
        return self._read(inputs)

    def cutting_modules(self, past: Tensor) -> list[str]:
        """Modules whose arguments depend on the past by autograd, but whose output does not."""
        names: list[str] = []

        def check(name: str, args: tuple[object, ...], output: object) -> None:
            depends = any(isinstance(part, Tensor) and part.requires_grad for part in args)
            returned = first_tensor(output)
            if depends and returned is not None and returned.is_floating_point() and not returned.requires_grad:
                names.append(name)

        with ExitStack() as hooks:
            for name, module in named_parts(self._forward.model):
                hook = module.register_forward_hook(lambda _, args, output, name=name: check(name, args, output))
                hooks.callback(hook.remove)
            self.future(past.detach().requires_grad_())
        return names

    def _read(self, inputs: Tensor | None = None) -> Tensor:
        """The outputs of a run with these inputs, both (L, …); a run without stores its inputs."""
        outputs: list[Tensor] = []

        def replace_inputs(module: nn.Module, args: tuple[object, ...], output: object) -> object:
            if inputs is None:
                self.inputs, self._axis = self._positions_first(self.start, output)
                return None
            return _replaced(output, inputs.unsqueeze(1 - self._axis))

        def read(value: object) -> None:
            outputs.append(self._positions_first(self.end, value)[0])

        def read_input(module: nn.Module, args: tuple[object, ...], kwargs: dict[str, object]) -> None:
            read(args or tuple(kwargs.values()))

        with ExitStack() as hooks:
            hooks.callback(self._first.register_forward_hook(replace_inputs).remove)
            if self._reads_input:
                hooks.callback(self._last.register_forward_pre_hook(read_input, with_kwargs=True).remove)
            else:
                hooks.callback(self._last.register_forward_hook(lambda _, __, output: read(output)).remove)
            self._run()
        return outputs[-1]

    def _positions_first(self, name: str, value: object) -> tuple[Tensor, int]:
        """The first tensor of a value as (L, …), and its dimension of positions, 0 or 1."""
        tensor, length, module = first_tensor(value), self._forward.length, f"Module {name or 'of the model'}"
        if tensor is None or not tensor.is_floating_point():
            raise ModelError(f"{module} must return a tensor of numbers.")
        shape = tuple(tensor.shape)
        # The other dimension is that of the only sequence.
        for axis in (1, 0):
            if len(shape) >= 2 and shape[axis] == length and shape[1 - axis] == 1:
                return tensor.squeeze(1 - axis), axis
        raise ModelError(
            f"{module} must return a tensor of shape (1, {length}, …) or ({length}, 1, …), got {shape}. Name another "
            "module."
        )

    def _run(self) -> None:
        dtype = next(self._forward.model.parameters()).dtype
        with nullcontext() if self._own_kernels else differentiable(dtype):
            self.returned = first_tensor(self._forward.backbone(*self._forward.args, **self._forward.kwargs))


def first_tensor(value: object) -> Tensor | None:
    """A tensor, or the first one in a nested tuple, list or mapping."""
    if isinstance(value, Tensor):
        return value
    if isinstance(value, Mapping):
        value = list(cast("Mapping[str, object]", value).values())
    if not isinstance(value, tuple | list):
        return None
    parts = cast("list[object]", value)
    return next((found for part in parts if (found := first_tensor(part)) is not None), None)


def _replaced(value: Any, tensor: Tensor) -> Any:
    """A copy of a value with another first tensor."""
    if isinstance(value, Tensor):
        return tensor
    if isinstance(value, Mapping):
        mapping = cast("Mapping[str, Any]", value)
        changed: Any = cast("Any", type(mapping))(**mapping)
        name = next(name for name, part in changed.items() if first_tensor(part) is not None)
        changed[name] = _replaced(changed[name], tensor)
        return changed
    index = next(index for index, part in enumerate(value) if first_tensor(part) is not None)
    parts = [*value[:index], _replaced(value[index], tensor), *value[index + 1 :]]
    return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)


def _embedding(model: nn.Module, modules: Mapping[str, nn.Module]) -> str:
    """The name of the module that looks up token ids."""
    get = getattr(model, "get_input_embeddings", None)
    embedding = get() if callable(get) else None
    for name, module in modules.items():
        if module is embedding or (embedding is None and isinstance(module, nn.Embedding)):
            return name
    raise InputError(f"start must be the name of a module, as {type(model).__name__} has no embedding of tokens.")
