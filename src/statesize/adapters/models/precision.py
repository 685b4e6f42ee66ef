"""Weights of half precision stay as they are: each part is in float32 while it runs, and only then."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from contextlib import ExitStack, contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn

from statesize.adapters.models.layers import layer_lists

_STORED = "_statesize_stored"
Swap = tuple[dict[str, Tensor | None], str, Tensor]


@contextmanager
def single_precision(model: nn.Module) -> Generator[None]:
    """Run every part of a model in float32 at least, one layer at a time in memory.

    When a module of fewer than 32 bits is called, float32 copies take the place of the weights and buffers of it and
    its parts, and the originals come back, the same objects, when it returns. A module that holds a list of layers
    only has its own weights copied. Embeddings are looked up as they are, and what was found is converted.

    Args:
        model: Any module; a call of one of its parts alone is in float32 too.

    Yields:
        Nothing.
    """
    if not any(_is_low(tensor) for tensor in (*model.parameters(), *model.buffers())):
        yield
        return
    holders = _holders_of_layers(model)
    frames: list[tuple[nn.Module, list[Swap]]] = []

    def enter(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
        frames.append((module, swaps := []))
        _to_single([module] if module in holders else module.modules(), swaps)
        return in_single(args), in_single(kwargs)

    def leave(module: nn.Module, args: tuple[Any, ...], output: object) -> Any:
        while frames:
            left, swaps = frames[-1]
            _restore(swaps)
            frames.pop()
            if left is module:
                break
        return in_single(output)

    with ExitStack() as stack:
        for module in model.modules():
            stack.callback(module.register_forward_pre_hook(enter, prepend=True, with_kwargs=True).remove)
            stack.callback(module.register_forward_hook(leave, always_call=True).remove)
        try:
            yield
        finally:
            while frames:
                _restore(frames[-1][1])
                frames.pop()


@contextmanager
def in_single_precision(module: nn.Module) -> Generator[None]:
    """Hold a module and its parts in float32 at least, for code that uses its weights without calling it.

    Args:
        module: Any module.

    Yields:
        Nothing.
    """
    swaps: list[Swap] = []
    try:
        _to_single(module.modules(), swaps)
        yield
    finally:
        _restore(swaps)


def stored_dtype(module: nn.Module) -> torch.dtype:
    """The dtype of a module's weights as the model holds them, whatever they are while it runs.

    Args:
        module: Any module.

    Returns:
        That of its first floating-point weight; float32 where it has none.
    """
    for parameter in module.parameters():
        if parameter.is_floating_point():
            return cast("Tensor", getattr(parameter, _STORED, parameter)).dtype
    return torch.float32


def stored_element_size(module: nn.Module) -> int:
    """Bytes of one number of a module's weights as the model holds them.

    Args:
        module: Any module.

    Returns:
        Bytes; those of float32 where it has no weights.
    """
    return stored_dtype(module).itemsize


def _holders_of_layers(model: nn.Module) -> set[nn.Module]:
    names = {""}
    for name in layer_lists(model):
        parts = name.split(".")
        names |= {".".join(parts[: count + 1]) for count in range(len(parts))}
    # A model without a list of layers is one layer.
    return {model.get_submodule(name) for name in names} if len(names) > 1 else set()


def _to_single(modules: Iterable[nn.Module], swaps: list[Swap]) -> None:
    for module in modules:
        if type(module) is nn.Embedding:
            continue
        held = vars(module)
        for tensors in cast("tuple[dict[str, Tensor | None], ...]", (held["_parameters"], held["_buffers"])):
            for name, tensor in tensors.items():
                if tensor is None or not _is_low(tensor):
                    continue
                single = tensor.detach().float()
                if isinstance(tensor, nn.Parameter):
                    single = nn.Parameter(single, requires_grad=False)
                setattr(single, _STORED, tensor)
                swaps.append((tensors, name, tensor))
                tensors[name] = single


def _restore(swaps: list[Swap]) -> None:
    # Put back before it is struck off: an interrupt between the two leaves it to be put back again.
    while swaps:
        tensors, name, original = swaps[-1]
        tensors[name] = original
        swaps.pop()


def _is_low(tensor: Tensor) -> bool:
    return tensor.is_floating_point() and torch.finfo(tensor.dtype).bits < 32


def in_single(value: object) -> Any:
    """Tensors of less than 32 bits as float32, in lists, tuples and mappings too.

    Args:
        value: Any value.

    Returns:
        The same, where nothing is to be converted.
    """
    if isinstance(value, Tensor):
        return value.float() if _is_low(value) else value
    if type(value) is tuple:
        return tuple(in_single(part) for part in cast("tuple[object, ...]", value))
    if type(value) is list:
        return [in_single(part) for part in cast("list[object]", value)]
    if type(value) is dict:
        return {key: in_single(part) for key, part in cast("dict[Any, object]", value).items()}
    return value
