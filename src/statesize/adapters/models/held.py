"""A model held as it is measured."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

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
