"""Weights of half precision: float32 copies take their place while a mixer runs once more, or says its operator."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn

_STORED = "_statesize_stored"
Swap = tuple[dict[str, Tensor | None], str, Tensor]


@contextmanager
def single_precision(module: nn.Module) -> Generator[None]:
    """Hold the weights and buffers of a module and its parts in float32 at least."""
    # Float32 copies take their place, and the originals come back, the same objects. An embedding is looked up as it
    # is.
    swaps: list[Swap] = []
    try:
        _to_single(module.modules(), swaps)
        yield
    finally:
        _restore(swaps)


def stored_dtype(module: nn.Module) -> torch.dtype:
    """The dtype of a module's weights as the model holds them, whatever they are while it runs."""
    for parameter in module.parameters():
        if parameter.is_floating_point():
            return cast("Tensor", getattr(parameter, _STORED, parameter)).dtype
    return torch.float32


def stored_element_size(module: nn.Module) -> int:
    """Bytes of one number of a module's weights as the model holds them."""
    return stored_dtype(module).itemsize


def _to_single(modules: Iterable[nn.Module], swaps: list[Swap]) -> None:
    for module in modules:
        if type(module) is nn.Embedding:
            continue
        held = vars(module)
        for tensors in cast("tuple[dict[str, Tensor | None], ...]", (held["_parameters"], held["_buffers"])):
            for name, tensor in tensors.items():
                if tensor is None or not is_low(tensor):
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


def is_low(tensor: Tensor) -> bool:
    """Whether a tensor holds floating-point numbers of less than 32 bits."""
    return tensor.is_floating_point() and torch.finfo(tensor.dtype).bits < 32


def in_single(value: object) -> Any:
    """Tensors of less than 32 bits as float32, in lists, tuples and mappings too."""
    return mapped(value, lambda leaf: leaf.float() if isinstance(leaf, Tensor) and is_low(leaf) else leaf)


def mapped(value: Any, function: Callable[[Any], Any]) -> Any:
    """A value with a function applied to what its tuples, lists and dicts hold, however deep."""
    if isinstance(value, dict):
        return {key: mapped(part, function) for key, part in cast("dict[Any, Any]", value).items()}
    if type(value) in (tuple, list):
        return type(value)(mapped(part, function) for part in value)
    return function(value)
