"""A model of this process on its way to others: its structure without numbers, and its weights as plain bytes."""

from __future__ import annotations

import copy
import importlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from statesize.errors import ModelError

Bytes = NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Structure:
    """A module whose parameters and buffers hold no numbers; to be pickled in one piece."""

    # Of meta tensors.
    module: nn.Module
    # These tensors, each once, and where each belongs.
    tensors: tuple[Tensor, ...]
    devices: tuple[str, ...]


def take_apart(model: nn.Module) -> tuple[Structure, list[Bytes]]:
    """A module without its numbers, and the bytes of each of its tensors; what cannot be copied is a ModelError."""
    tensors = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    # A copy takes these in place of the originals, in all places that hold the same tensor.
    empty = {key: _empty(tensor) for key, tensor in tensors.items()}
    try:
        module = copy.deepcopy(model, {**empty})
    except (TypeError, RuntimeError) as error:
        raise ModelError(
            f"{type(model).__name__} holds something that cannot be copied to another process ({error}); give a "
            "function that loads the model there."
        ) from error
    devices = tuple(str(tensor.device) for tensor in tensors.values())
    return Structure(module, tuple(empty.values()), devices), [_bytes(tensor) for tensor in tensors.values()]


def put_together(structure: Structure, contents: list[Bytes]) -> nn.Module:
    """The module that `take_apart` was given, from its structure and the bytes of each tensor."""
    filled = {
        id(empty): _filled(empty, content, device)
        for empty, content, device in zip(structure.tensors, contents, structure.devices, strict=True)
    }
    return copy.deepcopy(structure.module, {**filled})


def _empty(tensor: Tensor) -> Tensor:
    like = torch.empty_like(tensor.detach(), device="meta", memory_format=torch.contiguous_format)
    return nn.Parameter(like, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else like


def _bytes(tensor: Tensor) -> Bytes:
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()


def _filled(empty: Tensor, content: Bytes, device: str) -> Tensor:
    # A copy, because what other processes share must not be written to.
    copied = torch.empty(content.size, dtype=torch.uint8)
    copied.numpy()[:] = content
    values = copied.view(empty.dtype).reshape(empty.shape).to(device)
    return nn.Parameter(values, empty.requires_grad) if isinstance(empty, nn.Parameter) else values


def sent(ray: Any, model: nn.Module) -> Callable[[], nn.Module]:
    """What gives the module in processes of Ray; its bytes lie in the object store once for all of a machine."""
    structure, contents = take_apart(model)
    return partial(_received, structure, ray.put(contents))


def _received(structure: Structure, contents: Any) -> nn.Module:
    return put_together(structure, importlib.import_module("ray").get(contents))
