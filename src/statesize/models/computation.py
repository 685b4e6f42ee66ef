"""What the modules of a model compute with beside their tensors: code, attributes, and hooks of others."""

from __future__ import annotations

import functools
import hashlib
import sys
import types
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any, cast

import torch
from torch import Tensor, nn

from statesize.adapters.models.model_state import named_parts, tensors_sha256

_PLAIN = (type(None), bool, int, float, complex, str, bytes, torch.dtype, torch.device, torch.Size)
# What counts of what a class holds and code calls: others, such as lists and dicts, are often filled while code runs.
_HELD = (*_PLAIN, Tensor, types.FunctionType, tuple)
_HOOKS = ("_forward_pre_hooks", "_forward_hooks")
# Where a model comes from, and what it has told, are no part of what it computes.
_BESIDE = {*vars(nn.Module()), "name_or_path", "_name_or_path", "warnings_issued", "generation_config"}
_CALLS = ("__func__", "fget", "func")
_INSTALLED = ("site-packages", "dist-packages")


def computation_sha256(model: nn.Module) -> str:
    """SHA-256 of what a model computes with beside its weights and buffers; the same for its copies in other processes.

    Code that is installed counts by its name and version, other code by itself and by what it calls in its file.

    Args:
        model: Any model.

    Returns:
        Of all modules: classes, attributes other than modules, parameters and buffers, and forward hooks.
    """
    described, found = _Described(), hashlib.sha256()
    for name, module in named_parts(model):
        own = {key: value for key, value in vars(module).items() if key not in _BESIDE}
        # Hooks are numbered in the order in which the process has hung them.
        hooks = [list(vars(module)[kind].values()) for kind in _HOOKS]
        found.update(f"{name} {described.of(type(module))} {described.of(own)} {described.of(hooks)}\n".encode())
    return found.hexdigest()


class _Described:
    """Objects as texts that are the same in each process, each looked at once."""

    def __init__(self) -> None:
        self._known: dict[int, str] = {}
        self._kept: list[object] = []

    def of(self, value: object) -> str:
        """A digest of an object, or what it is where that is short."""
        if isinstance(value, _PLAIN):
            return repr(value)
        if isinstance(value, nn.Module):
            # It has a line of its own, or is none of the model's parts.
            return type(value).__qualname__
        key = id(value)
        if key not in self._known:
            self._known[key] = _name(value)
            # An id is only told apart from others while its object lives.
            self._kept.append(value)
            # Objects of others may do anything where they are looked at.
            with suppress(Exception):
                self._known[key] = hashlib.sha256(self._text(value).encode()).hexdigest()
        return self._known[key]

    def _text(self, value: object) -> str:
        if isinstance(value, Tensor):
            return tensors_sha256({"": value.detach()})
        if isinstance(value, functools.partial):
            return self._each([value.func, value.args, value.keywords])
        if isinstance(value, types.MethodType):
            return self._each([value.__func__, type(value.__self__)])
        if isinstance(value, types.FunctionType):
            return self._function(value)
        if isinstance(value, type):
            return self._class(value)
        if isinstance(value, Mapping):
            items = cast("Mapping[object, object]", value).items()
            return _name(cast("object", value)) + self._each([one for item in items for one in item])
        if isinstance(value, list | tuple | set | frozenset):
            each = [self.of(one) for one in cast("Iterable[object]", value)]
            return _name(cast("object", value)) + ",".join(sorted(each) if isinstance(value, set | frozenset) else each)
        if hasattr(value, "to_dict"):
            # A configuration, which leaves its kernel out.
            said = cast("dict[str, object]", cast("Any", value).to_dict())
            said = {name: one for name, one in said.items() if name not in _BESIDE}
            return self._each([said, getattr(value, "_attn_implementation", None)])
        own: dict[str, object] = {k: v for k, v in getattr(value, "__dict__", {}).items() if k not in _BESIDE}
        if _installed(type(value)) is not None:
            # Such as a logger, which keeps what it has told.
            own = {name: one for name, one in own.items() if isinstance(one, (*_PLAIN, Tensor, types.FunctionType))}
        return f"{getattr(value, '__qualname__', '')} {self._each([type(value), own])}"

    def _each(self, values: Iterable[object]) -> str:
        return "(" + ",".join(self.of(value) for value in values) + ")"

    def _class(self, value: type) -> str:
        if (installed := _installed(value)) is not None:
            return installed
        held = list[object]()
        for name, one in vars(value).items():
            # A property and a method of a class count by what they call.
            called = next((found for kind in _CALLS if (found := getattr(one, kind, None)) is not None), one)
            # Python itself keeps notes on a class, such as `__slotnames__` once an object of it was pickled.
            if isinstance(called, types.FunctionType if name.startswith("__") else _HELD):
                held.append(cast("object", called))
        return f"{_name(value)} {value.__qualname__} {self._each([*value.__bases__, *held])}"

    def _function(self, value: types.FunctionType) -> str:
        if (installed := _installed(value)) is not None:
            return installed
        cells = list(map(_contents, value.__closure__ or ()))
        named = (value.__globals__.get(name) for name in _names(value.__code__))
        called: list[object] = [one for one in named if isinstance(one, (*_HELD, type, functools.partial))]
        parts: list[object] = [value.__defaults__, value.__kwdefaults__, cells, called]
        return f"{value.__qualname__} {_code(value.__code__)} {self._each(parts)}"


def _contents(cell: types.CellType) -> object:
    """What a function has taken from where it was made; None where that is not there yet."""
    with suppress(ValueError):
        return cell.cell_contents
    return None


def _installed(value: type | Callable[..., Any]) -> str | None:
    """The name and version of what is installed or belongs to Python; None of code of one's own."""
    name = str(value.__module__ or "")
    module, package = sys.modules.get(name), name.partition(".")[0]
    file = value.__code__.co_filename if isinstance(value, types.FunctionType) else getattr(module, "__file__", None)
    standard = package in sys.stdlib_module_names and package != "__main__"
    if not standard and not any(folder in str(file) for folder in _INSTALLED):
        return None
    version = getattr(sys.modules.get(package), "__version__", "")
    return f"{name}.{value.__qualname__} {version}"


def _code(code: types.CodeType) -> str:
    """What code does, wherever it stands."""
    consts = [_code(one) if isinstance(one, types.CodeType) else _constant(one) for one in code.co_consts]
    return f"{code.co_code.hex()} {code.co_names} {consts}"


def _constant(value: object) -> str:
    return repr(sorted(map(repr, cast("frozenset[object]", value))) if isinstance(value, frozenset) else value)


def _names(code: types.CodeType) -> list[str]:
    """All names that code and the code in it look up."""
    inside = [name for one in code.co_consts if isinstance(one, types.CodeType) for name in _names(one)]
    return [*code.co_names, *inside]


def _name(value: object) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}"
