"""Module-level functions of a model's source files: found, replaced by observed ones, and put back."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Self, cast

from torch import Tensor, nn

from statesize.adapters.watching.running import Frame
from statesize.errors import ModelError


@dataclass(frozen=True, eq=False)
class KernelCall:
    """One call of a kernel by a mixer."""

    name: str  # module name of the mixer
    module: nn.Module  # the mixer
    arguments: Mapping[str, Any]  # every argument by its name in the pure-torch function, defaults included
    output: Tensor  # what it returned; where that is several things, the first

    @classmethod
    def by(cls, frame: Frame, arguments: Mapping[str, Any], output: Tensor) -> Self:
        """A call by the module that runs."""
        return cls(frame.name, frame.module, arguments, output)

    def require_no_state(self, argument: str) -> None:
        """Refuse a call that goes on from an earlier state, because its T would miss what that holds."""
        if self.arguments.get(argument) is not None:
            raise ModelError(
                f"{self.name} was called with an initial state ({argument}), so its operator would miss what came "
                "before: run the whole sequence in one call without a cache (use_cache=False)."
            )


def source_files(model: nn.Module) -> list[ModuleType]:
    """The Python modules that define the classes of a model's parts, base classes included."""
    classes = dict.fromkeys(kind for module in model.modules() for kind in type(module).__mro__)
    names = dict.fromkeys(kind.__module__ for kind in classes)
    return [sys.modules[name] for name in names if name in sys.modules]


def pure_torch(function: Callable[..., Any]) -> Callable[..., Any]:
    """The pure-torch function below decorators that would call a compiled kernel."""
    if isinstance(function, nn.Module):
        # The kernels package wraps a function in a module, which holds it as a closure of its forward.
        cells = inspect.getclosurevars(type(function).forward).nonlocals.values()
        function = next((cell for cell in cells if inspect.isroutine(cell)), function)
    return inspect.unwrap(function)


def first(result: Any) -> Tensor:
    """The tensor that a kernel mixed: what it returned, or the first of several things."""
    return cast("Tensor", result[0] if isinstance(result, tuple) else result)


@contextmanager
def replaced(file: ModuleType, name: str, replacement: object) -> Generator[None]:
    """Let a name of a source file mean something else while this is open."""
    original = vars(file)[name]
    try:
        setattr(file, name, replacement)
        yield
    finally:
        setattr(file, name, original)


def observed(function: Callable[..., Any], called: Callable[[Mapping[str, Any], Tensor], object]) -> Callable[..., Any]:
    """The pure-torch function of a kernel, whose calls are reported."""
    body = pure_torch(function)
    signature = inspect.signature(body)

    def kernel(*args: Any, **kwargs: Any) -> Any:
        result: Any = body(*args, **kwargs)
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        called({**bound.arguments, **bound.arguments.get("kwargs", {})}, first(result))
        return result

    # A second observer must find the arguments, but not pass over this one by unwrapping it.
    kernel.__signature__ = signature  # pyright: ignore[reportFunctionMemberAccess]
    return kernel
