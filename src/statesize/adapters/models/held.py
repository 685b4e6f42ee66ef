"""A model held as it is measured: modes, attributes and precision, and all of it put back."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn

from statesize.adapters.models.wrapped import uncompiled


@contextmanager
def measuring(model: nn.Module) -> Generator[None]:
    """Hold a model in eval mode, uncompiled, without gradients and autocast, and put back all that a run changes."""
    device = device_of(model)
    seeded = [device] if device.type == "cuda" else []
    with (
        torch.random.fork_rng(seeded),
        uncompiled(),
        torch.no_grad(),
        torch.autocast(device.type, enabled=False),
        evaluating(model),
        _kept_attributes(model),
    ):
        yield


@contextmanager
def evaluating(model: nn.Module) -> Generator[None]:
    """Hold a module in eval mode."""
    # One flag a module: model.train(True) would also switch on parts that were frozen in eval mode.
    modes = [(module, module.training) for module in model.modules()]
    try:
        model.eval()
        yield
    finally:
        for module, training in modes:
            module.training = training


def device_of(model: nn.Module) -> torch.device:
    """The device of a model's first parameter or buffer, or the CPU."""
    tensor = next(model.parameters(), None)
    if tensor is None:
        tensor = next(model.buffers(), None)
    return torch.device("cpu") if tensor is None else tensor.device


@contextmanager
def _kept_attributes(model: nn.Module) -> Generator[None]:
    # RecurrentGemma keeps its last states in attributes, rotary embeddings keep the frequencies of the last length.
    def tensors(module: nn.Module) -> dict[str, Tensor | None]:
        return {name: value for name, value in vars(module).items() if value is None or isinstance(value, Tensor)}

    before = [(module, tensors(module), dict(_buffers(module))) for module in model.modules()]
    try:
        yield
    finally:
        for module, attributes, buffers in before:
            vars(module).update(attributes)
            _buffers(module).update(buffers)


def _buffers(module: nn.Module) -> dict[str, Tensor | None]:
    return vars(module)["_buffers"]


_STORED = "_statesize_stored"
Swap = tuple[dict[str, Tensor | None], str, Tensor]


@contextmanager
def single_precision(module: nn.Module) -> Generator[None]:
    """Hold the weights and buffers of a module and its parts in float32 at least."""
    # Float32 copies replace them, and the originals come back, the same objects. An embedding is looked up as it
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


def logits_of(model: nn.Module, tokens: Tensor) -> Tensor:
    """Logits (S, L, V) of token ids (S, L), by a forward pass without a cache that returns them or has them."""
    options = {"use_cache": False} if "use_cache" in inspect.signature(model.forward).parameters else {}
    output = model(tokens, **options)
    return output if isinstance(output, Tensor) else output.logits
