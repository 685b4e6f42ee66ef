"""A second device on a machine that has one: tensors on it are computed by the CPU, and refuse to meet the CPU's.

So a test without a GPU sees what a GPU would refuse: an operation on tensors of two devices, NumPy of a tensor that is
elsewhere. What may cross is what torch lets cross: copies, numbers, and indices of the CPU.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.library import Library
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

# A device that torch has a name for and no code: what is not handled below fails.
DEVICE, CPU = torch.device("lazy:0"), torch.device("cpu")
_aten: Any = torch.ops.aten
_CROSS = {_aten._to_copy.default, _aten.copy_.default, _aten.index.Tensor}
_CROSS |= {_aten.index_put.default, _aten.index_put_.default, _aten._index_put_impl_.default}


class Elsewhere(Tensor):
    """A tensor on the second device, which holds its numbers as one of the CPU does."""

    @staticmethod
    def __new__(cls, held: Tensor) -> Elsewhere:
        options = {"dispatch_device": True, "device_for_backend_keys": DEVICE}
        return torch.Tensor._make_subclass(cls, held, held.requires_grad, **options)

    @property
    def device(self) -> torch.device:
        return DEVICE

    def tolist(self) -> Any:
        return here(self).tolist()

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        return _run(function, args, kwargs or {})


def here(tensor: Any) -> Any:
    """A tensor's numbers, as a tensor of the CPU."""
    if not isinstance(tensor, Elsewhere):
        return tensor
    with torch._C._DisableTorchDispatch():
        return torch.Tensor._make_subclass(Tensor, tensor, False, device_for_backend_keys=CPU)


# What Python hands to torch as numbers becomes a tensor below all modes.
_LIBRARY = Library("aten", "IMPL")
for _made in (_aten.empty.memory_format, _aten.empty_strided.default, _aten.copy_.default):
    _LIBRARY.impl(_made, lambda *args, _made=_made, **kwargs: _run(_made, args, kwargs), "Lazy")


def _is_second(device: Any) -> bool:
    return device is not None and torch.device(device).type == DEVICE.type


def _run(function: Any, args: Any, kwargs: Any) -> Any:
    if function is torch.ops.prim.device.default:
        return DEVICE
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    there = [tensor for tensor in tensors if isinstance(tensor, Elsewhere)]
    if there and function not in _CROSS and any(one.dim() and not isinstance(one, Elsewhere) for one in tensors):
        raise RuntimeError(f"Expected all tensors to be on the same device, but found {DEVICE} and cpu in {function}.")
    result_is_there = isinstance(tensors[0], Elsewhere) if function in _CROSS else bool(there)
    if kwargs.get("device") is not None:
        result_is_there, kwargs = _is_second(kwargs["device"]), {**kwargs, "device": CPU}
    given: dict[int, tuple[Tensor, Tensor]] = {}

    def unwrapped(leaf: Any) -> Any:
        if not isinstance(leaf, Elsewhere):
            return leaf
        held = here(leaf)
        given[id(held)] = held, leaf
        return held

    def wrapped(leaf: Any) -> Any:
        # What an operation changes in its place it returns.
        if id(leaf) in given:
            return given[id(leaf)][1]
        return Elsewhere(leaf) if isinstance(leaf, Tensor) and result_is_there else leaf

    return tree_map(wrapped, function(*tree_map(unwrapped, args), **tree_map(unwrapped, kwargs)))


class second_device(TorchDispatchMode):
    """The device, while there is one."""

    def __enter__(self) -> torch.device:
        super().__enter__()
        return DEVICE

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        # Operations that make a tensor on the device have none of its tensors among their arguments.
        kwargs = kwargs or {}
        if _is_second(kwargs.get("device")) or any(issubclass(kind, Elsewhere) for kind in types):
            return _run(function, args, kwargs)
        return function(*args, **kwargs)
