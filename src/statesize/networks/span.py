"""The part of a model between two modules: a function from past outputs of the first to future ones of the second."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack, nullcontext
from typing import Any, cast

import torch
from torch import Tensor, nn

from statesize.adapters.forward import Forward
from statesize.adapters.models.model_state import mapped, tensors_in, token_embedding
from statesize.adapters.models.precision import differentiable, stored_dtype
from statesize.adapters.observation import in_this_thread
from statesize.check import refuse
from statesize.errors import InputError, ModelError
from statesize.io.text import listed


class Span:
    """A model over one sequence, from the outputs of one module to those of another, or to the inputs of the last norm.

    Attributes:
        start: The name of the first module, or of the frames.
        end: The name of the second; the model's class if the output is that of the model.
        inputs: The unchanged output of the first module, with positions first, (L, …).
        outputs: The outputs of the span, with positions first, (L, …).
        returned: The result of the model in the last run.
    """

    inputs: Tensor
    returned: Tensor | None

    def __init__(
        self,
        forward: Forward,
        start: str | None,
        end: str | None,
        *,
        own_kernels: bool = False,
        like: Span | None = None,
    ) -> None:
        # A span `like` another, of a copy of its model, finds its modules where that one did, without a run.
        self._forward, self._own_kernels = forward, own_kernels
        modules = dict(forward.parts)
        self._places = self._found(modules, start, end) if like is None else like._places
        self.start, end, self._of_frames, self._calls, self._reads_input = self._places
        self._first, self._last = modules.get(self.start), modules[end]
        self._axis, self.end = 0, end or type(forward.model).__name__
        self.outputs = self.outputs_of()

    def _found(
        self, modules: Mapping[str, nn.Module], start: str | None, end: str | None
    ) -> tuple[str, str, bool, int, bool]:
        """Both modules, whether frames stand for the first, how often it runs, whether the second's input is read."""
        called, returning = list[str](), list[str]()
        names = {module: name for name, module in modules.items()}

        def enter(module: nn.Module, _: object) -> None:
            called.append(names[module])

        def leave(module: nn.Module, _: object, output: object) -> None:
            if self._layout(first_tensor(output)) is not None:
                returning.append(names[module])

        with ExitStack() as hooks:
            for module in names:
                hooks.callback(module.register_forward_pre_hook(in_this_thread(enter)).remove)
                hooks.callback(module.register_forward_hook(in_this_thread(leave)).remove)
            self._run()
        forward = self._forward
        # Frames are numbers themselves.
        of_frames = start is None and self._layout(_measured_tensor(forward)) is not None
        start = start or (forward.measured.name or "inputs" if of_frames else _embedding(forward, modules))
        # What a decoder shares with its encoder runs for that first.
        calls = returning.count(start) if forward.measured.decodes else 0
        norms = [name for name in called if "norm" in type(modules[name]).__name__.lower()]
        # Without `end` the outputs are the inputs of the last norm, or those of the model if it has no norm.
        reads_input = end is None and bool(norms)
        end = end if end is not None else norms[-1] if norms else ""
        for argument, name in (("start", start), ("end", end)):
            if argument == "start" and of_frames:
                continue
            if name not in modules or name not in called:
                ran = list(dict.fromkeys(filter(None, called)))
                refuse(argument, "the name of a module that runs", name, f"It has {listed(ran)}.")
        return start, end, of_frames, calls, reads_input

    def future(self, past: Tensor) -> Tensor:
        """The outputs at positions from i on, (L − i, …), for other inputs before i, (i, …)."""
        return self.outputs_of(torch.cat([past, self.inputs[past.shape[0] :]]))[past.shape[0] :]

    def outputs_of(self, inputs: Tensor | None = None) -> Tensor:
        """The outputs for other inputs, both (L, …); a run without stores its own."""
        outputs: list[Tensor] = []
        earlier = iter(range(1, self._calls))

        def replace_inputs(module: nn.Module, args: tuple[object, ...], output: object) -> object:
            other = self._layout(first_tensor(output)) is None if self._forward.measured.decodes else False
            if other or next(earlier, None) is not None:
                return None
            if inputs is None:
                self.inputs, self._axis = self._positions_first(self.start, output)
                return None
            return _replaced(output, self._batched(inputs))

        def read(value: object) -> None:
            outputs.append(self._positions_first(self.end, value)[0])

        def read_input(module: nn.Module, args: tuple[object, ...], kwargs: dict[str, object]) -> None:
            read(args or tuple(kwargs.values()))

        with ExitStack() as hooks:
            if self._first is not None:
                hooks.callback(self._first.register_forward_hook(in_this_thread(replace_inputs)).remove)
            if self._reads_input:
                hooks.callback(
                    self._last.register_forward_pre_hook(in_this_thread(read_input), with_kwargs=True).remove
                )
            else:
                read_output = in_this_thread(lambda *passed: read(passed[-1]))
                hooks.callback(self._last.register_forward_hook(read_output).remove)
            self._run(self._frames(inputs) if self._of_frames else None)
        return outputs[-1]

    def _frames(self, inputs: Tensor | None) -> Tensor:
        """The frames that the model takes, which are stored if there are no other inputs."""
        frames = _measured_tensor(self._forward)
        if inputs is None:
            self.inputs, self._axis = self._positions_first(self.start, frames)
            return frames
        return self._batched(inputs)

    def _batched(self, inputs: Tensor) -> Tensor:
        """Undo `_positions_first` of the start."""
        return inputs.unsqueeze(1).movedim((0, 1), (self._axis, int(self._axis == 0)))

    def _positions_first(self, name: str, value: object) -> tuple[Tensor, int]:
        """The first tensor of a value as (L, …), and its dimension of positions."""
        tensor, length, module = first_tensor(value), self._forward.length, f"Module {name or 'of the model'}"
        if tensor is None:
            raise ModelError(f"{module} must return a tensor of numbers.")
        axis = self._layout(tensor)
        if axis is None:
            raise ModelError(
                f"{module} must return a tensor of shape (1, {length}, …) or ({length}, 1, …), got "
                f"{tuple(tensor.shape)}. Name another module."
            )
        return tensor.movedim((axis, int(axis == 0)), (0, 1)).squeeze(1), axis

    def _layout(self, tensor: Tensor | None) -> int | None:
        """The dimension of positions; another is that of the only sequence, 0, or 1 where this is 0."""
        if tensor is None or not tensor.is_floating_point() or tensor.ndim < 2:
            return None
        shape, length = tensor.shape, self._forward.length
        # Frames may have channels before positions.
        axes = (1, 0, 2) if tensor.ndim == 3 and len(self._forward.measured.shape) > 2 else (1, 0)
        return next((axis for axis in axes if shape[axis] == length and shape[int(axis == 0)] == 1), None)

    def _run(self, frames: Tensor | None = None) -> None:
        args, kwargs = self._forward.args, dict(self._forward.kwargs)
        if frames is not None and args:
            args = (frames, *args[1:])
        elif frames is not None:
            kwargs[self._forward.measured.name] = frames
        dtype = stored_dtype(self._forward.model)
        with nullcontext() if self._own_kernels else differentiable(dtype):
            self.returned = first_tensor(self._forward.called(*args, **kwargs))


def first_tensor(value: object) -> Tensor | None:
    """A tensor of real numbers, or the first one in what a module returns."""
    return next(iter(tensors_in(value)), None)


def _replaced(value: object, tensor: Tensor) -> object:
    """A copy of a value with another first tensor."""
    first = first_tensor(value)
    return mapped(value, lambda leaf: tensor if leaf is first else leaf)


def _measured_tensor(forward: Forward) -> Tensor:
    return forward.args[0] if forward.args else cast("Tensor", forward.kwargs[forward.measured.name])


def _embedding(forward: Forward, modules: Mapping[str, nn.Module]) -> str:
    """The name of the module that looks up token ids."""
    model = cast("Any", forward.model).get_decoder() if forward.measured.decodes else forward.model
    embedding = token_embedding(model)
    for name, module in modules.items():
        if module is embedding or (embedding is None and isinstance(module, nn.Embedding)):
            return name
    raise InputError(f"start must be the name of a module, as {type(model).__name__} has no embedding of tokens.")
