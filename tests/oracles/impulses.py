"""T from the model's own code: what it makes of an impulse at each position, with everything else as it was."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from statesize.adapters.kernels.scans import KERNELS
from statesize.adapters.models.model_state import named_parts
from statesize.adapters.observation import Frame, ModuleStack
from statesize.adapters.replaced import observed, pure_torch, replaced, source_files

Arguments = dict[str, Any]
# No module is watched, and the calls are of none.
RUNNING = ModuleStack(named_parts(nn.Identity()), 0, frames=[Frame("", nn.Identity(), (), {})])


@contextmanager
def kernel_arguments(model: nn.Module) -> Iterator[list[tuple[Any, Arguments]]]:
    """The calls of a model's kernels while this is open: the pure-torch function and its arguments by name."""
    calls: list[tuple[Any, Arguments]] = []
    with ExitStack() as stack:
        for file in source_files(named_parts(model)):
            for name in KERNELS.keys() & vars(file).keys():
                body = pure_torch(vars(file)[name])
                keep = observed(body, RUNNING, lambda call, body=body: calls.append((body, dict(call.arguments))))
                stack.enter_context(replaced({(file, name): keep}))
        yield calls


@torch.no_grad()
def impulse_responses(function: Any, arguments: Arguments) -> Tensor:
    """T of every unit, (S, units, L, L), by calling the kernel again with unit impulses as its values."""
    arguments = {name: value for name, value in arguments.items() if name != "kwargs"}
    name = next(name for name in ("hidden_states", "value") if name in arguments)
    values = arguments[name]
    if values.ndim == 3:
        return _one_channel_each(function, arguments, name)
    sequences, length, heads, _ = values.shape
    impulses = torch.eye(length, dtype=values.dtype)[:, None].expand(sequences, length, heads, length)
    return _first(function(**{**arguments, name: impulses.contiguous()})).transpose(1, 2)


def _one_channel_each(function: Any, arguments: Arguments, name: str) -> Tensor:
    # No dimension of the values is free, so that every impulse is a sequence of its own.
    values = arguments[name]
    position = 2 if name == "hidden_states" else 1
    length, found = values.shape[position], []
    for s in range(len(values)):
        alike = {
            key: value[s : s + 1].expand(length, *value.shape[1:]) if key in ("dt", "B", "C", "key") else value
            for key, value in arguments.items()
        }
        impulses = torch.eye(length, dtype=values.dtype).unsqueeze(3 - position)
        impulses = impulses.expand(length, *values.shape[1:])
        gate = {"z": None} if "z" in arguments else {}
        response = _first(function(**{**alike, **gate, name: impulses}))
        found.append((response if position == 2 else response.transpose(1, 2)).permute(1, 2, 0))
    return torch.stack(found)


@contextmanager
def part_arguments(part: nn.Module) -> Iterator[Arguments]:
    """What a part was last called with while this is open: keyword arguments by name, the others by number."""
    kept: Arguments = {}

    def keep(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        kept.update({str(number): value for number, value in enumerate(args)} | kwargs | {"output": output})

    handle = part.register_forward_hook(keep, with_kwargs=True)
    try:
        yield kept
    finally:
        handle.remove()


@contextmanager
def output_of(part: nn.Module, output: Tensor) -> Iterator[None]:
    """While this is open, a part returns what it is told."""
    handle = part.register_forward_hook(lambda module, args, _: output)
    try:
        yield
    finally:
        handle.remove()


def _first(result: Any) -> Tensor:
    return result[0] if isinstance(result, tuple) else result
