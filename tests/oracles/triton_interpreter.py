"""fla's Triton kernels on a machine without a GPU, interpreted: a process that starts with TRITON_INTERPRET=1."""

# Its kernels run there once autotuning is cut to the first configuration, a loop variable is an int that knows `.to`,
# masks are booleans, functions of the device (log1p, sine, cosine) are Triton's own, and CyFA does not require CUDA.
# Nothing of this could run otherwise, so that it stays for the process.

from __future__ import annotations

import builtins
import os
import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from types import SimpleNamespace
from typing import Any

_NO_ARGUMENTS = ("num_warps", "num_stages", "num_ctas", "maxnreg")


class LoopVariable(int):
    """An int that knows `.to`, as a loop variable in a compiled kernel does."""

    def to(self, *_: Any) -> LoopVariable:
        """Itself: the interpreter's numbers have no width."""
        return self

    def __mul__(self, other: Any) -> Any:
        return _loop(int(self) * other)

    def __add__(self, other: Any) -> Any:
        return _loop(int(self) + other)

    def __sub__(self, other: Any) -> Any:
        return _loop(int(self) - other)


_SWITCH = "TRITON_INTERPRET"


def interpret_if_asked() -> None:
    """Let the kernels of fla that are imported so far run in Triton's interpreter, if it is on."""
    if os.environ.get(_SWITCH) != "1" or "fla.ops" not in sys.modules:
        return
    triton: Any = import_module("triton.language")
    autotuner: Any = import_module("triton.runtime.autotuner").Autotuner
    builder: Any = import_module("triton.runtime.interpreter").InterpreterBuilder
    if autotuner.run is not _first_configuration:
        autotuner.run = _first_configuration
        for name, argument in (("create_masked_load", 2), ("create_masked_store", 3)):
            setattr(builder, name, _with_boolean_mask(getattr(builder, name), argument))
    device = _device(triton)
    for name, module in list(sys.modules.items()):
        if name.startswith("fla.ops.") and vars(module).get("range") is not _range:
            vars(module)["range"] = _range
            vars(module).update(dict.fromkeys({"tldevice", "libdevice"} & vars(module).keys(), device))
            if "validate_cyfa_inputs" in vars(module):
                vars(module)["validate_cyfa_inputs"] = _without_device(vars(module)["validate_cyfa_inputs"])


def _first_configuration(self: Any, *args: Any, **kwargs: Any) -> Any:
    self.nargs = dict(zip(self.arg_names, args, strict=False))
    chosen = {name: value for name, value in self.configs[0].all_kwargs().items() if name not in _NO_ARGUMENTS}
    return self.fn.run(*args, **kwargs, **chosen)


def _device(triton: Any) -> SimpleNamespace:
    """Functions of a device's library by those of Triton itself, which the interpreter knows."""

    def log1p(x: Any) -> Any:
        return triton.log(1 + x)

    def cosine(x: Any) -> Any:
        return triton.cos(x)

    def sine(x: Any) -> Any:
        return triton.sin(x)

    return SimpleNamespace(log1p=log1p, fast_cosf=cosine, fast_sinf=sine)


def _loop(number: Any) -> Any:
    return LoopVariable(number) if type(number) is int else number


def _range(*bounds: int) -> Iterator[LoopVariable]:
    return (LoopVariable(step) for step in builtins.range(*bounds))


def _without_device(validate: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *args, **kwargs: validate(*args, **kwargs | {"require_cuda": False})


def _with_boolean_mask(access: Callable[..., Any], argument: int) -> Callable[..., Any]:
    def masked(*args: Any) -> Any:
        args[argument].data = args[argument].data.astype(bool)
        return access(*args)

    return masked
