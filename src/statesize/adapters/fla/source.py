"""Layers of flash-linear-attention (fla), and others' that call its kernels, observed where they call them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from functools import partial, wraps
from importlib import metadata
from types import ModuleType
from typing import Any

import torch
from torch import nn

from statesize.adapters.fla.call import FlaCall
from statesize.adapters.fla.kernels import known, parse
from statesize.adapters.watching.kernel_functions import first, replaced, source_files
from statesize.adapters.watching.observation import Product, Record
from statesize.adapters.watching.running import Running
from statesize.errors import ModelError

SUPPORTED = "0.6"
_PACKAGES = ("fla", "flash_attn")


@contextmanager
def observing(model: nn.Module, running: Running, record: Record) -> Generator[None]:
    """Observe the kernels of fla that the files of a model's layers have imported."""
    # The functions themselves run, with their decorators, which choose between implementations.
    with ExitStack() as changes:
        kernels = {file: found for file in source_files(model) if (found := _kernels(file))}
        for file, found in kernels.items():
            for name, function in found.items():
                changes.enter_context(replaced(file, name, _observed(function, running, record)))
        yield


def _kernels(file: ModuleType) -> dict[str, Callable[..., Any]]:
    """Functions of fla in a file that mix values by queries and keys."""
    found = {name: function for name, function in vars(file).items() if _is_kernel(function)}
    if found:
        version = metadata.version("flash-linear-attention")
        if not version.startswith(f"{SUPPORTED}."):
            raise ModelError(
                f"flash-linear-attention must be of version {SUPPORTED} (>=0.6,<0.7), got {version}, whose kernels may "
                "take other arguments. Install 'statesize[fla]'."
            )
    return found


def _is_kernel(function: object) -> bool:
    package, _, rest = (getattr(function, "__module__", None) or "").partition(".")
    if not inspect.isfunction(function) or package not in _PACKAGES or (package == "fla" and rest[:4] != "ops."):
        return False
    if known(function.__name__):
        return True
    return {"q", "k", "v"} <= set(inspect.signature(function).parameters)


def _observed(function: Callable[..., Any], running: Running, record: Record) -> Callable[..., Any]:
    @wraps(function)
    def kernel(*args: Any, **kwargs: Any) -> Any:
        # What the kernel does inside is no mixing of its own.
        with torch._C.DisableTorchFunction():  # pyright: ignore[reportPrivateUsage]
            result = function(*args, **kwargs)
        given = {**dict(zip(inspect.signature(function).parameters, args, strict=False)), **kwargs}
        values, mixed = given.get("v"), first(result)
        product = Product(values, 1, mixed, 1) if isinstance(values, torch.Tensor) else None
        held = record(partial(_parsed, running, function, args, kwargs, result), product)
        if held is None:
            return result
        return (held, *result[1:]) if isinstance(result, tuple) else held

    return kernel


def _parsed(running: Running, function: Callable[..., Any], args: Any, kwargs: Any, result: Any) -> Any:
    return parse(FlaCall.made(running, function, args, kwargs, result))
