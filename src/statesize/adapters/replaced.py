"""Kernels seen where they are called, and functions and parts replaced and put back."""

from __future__ import annotations

import inspect
import sys
import threading
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from types import ModuleType
from typing import Any, cast

from torch import Tensor, nn

from statesize.adapters.models.model_state import NamedModules, is_a
from statesize.adapters.models.precision import arithmetic_of
from statesize.adapters.observation import ModuleStack, Observation, OnObservation, Source, in_this_thread
from statesize.errors import ModelError

# One for all models: a run also holds switches, random states and names of files, which the process has once.
ONE_RUN = threading.RLock()


@dataclass(frozen=True, eq=False)
class ReplacedCall:
    """One call of a kernel by a mixer."""

    name: str  # module name of the mixer
    module: nn.Module  # the mixer
    arguments: Mapping[str, Any]  # every argument by its name in the pure-torch function, defaults included
    output: Tensor  # what it returned; where that is several things, the first
    again: Callable[[str, Tensor], ReplacedCall] | None = None  # the same call with another argument

    def require_no_state(self, *arguments: str) -> None:
        """Refuse a call that goes on from an earlier state, because its T would miss what that holds."""
        if state := next((name for name in arguments if self.arguments.get(name) is not None), None):
            raise ModelError(
                f"{self.name} was called with an initial state ({state}), so its operator would miss what came before: "
                "run the whole sequence in one call without a cache (use_cache=False)."
            )


def source_files(parts: NamedModules) -> list[ModuleType]:
    """The Python modules that define the classes of a model's parts, base classes included."""
    names = dict.fromkeys(kind.__module__ for _, part in parts for kind in type(part).__mro__)
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


def with_first(result: Any, mixed: Tensor | None) -> Any:
    """What a kernel returned with another tensor in the place of the one that it mixed; as it is for None."""
    if mixed is None:
        return result
    return (mixed, *result[1:]) if isinstance(result, tuple) else mixed


@dataclass(frozen=True, eq=False)
class _Replaced:
    """What a name of a source file means in the thread that has replaced it, and in all others."""

    original: Any
    replacement: Any
    thread: int

    @property
    def here(self) -> Any:
        return self.replacement if threading.get_ident() == self.thread else self.original

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.here(*args, **kwargs)

    def __getitem__(self, key: Any) -> Any:
        return self.here[key]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.here, name)


def meanings(file: ModuleType) -> dict[str, Any]:
    """What the names of a source file mean in this thread."""
    return {name: value.here if isinstance(value, _Replaced) else value for name, value in vars(file).copy().items()}


@contextmanager
def replaced(changes: Mapping[tuple[ModuleType, str], object]) -> Generator[None]:
    """Let names of source files mean something else in this thread while this is open; other threads wait to do so."""
    with ONE_RUN:
        before = {(file, name): vars(file)[name] for file, name in changes}
        try:
            for (file, name), value in changes.items():
                setattr(file, name, _Replaced(before[file, name], value, threading.get_ident()))
            yield
        finally:
            for (file, name), value in before.items():
                setattr(file, name, value)


def observed(
    function: Callable[..., Any], running: ModuleStack, called: Callable[[ReplacedCall], Tensor | None]
) -> Callable[..., Any]:
    """A kernel whose calls are reported; what `called` returns takes its result's place."""
    # A compiled kernel rounds its products to TF32, so it runs as the model has it, and in pure torch in float64 only.
    body = pure_torch(function)
    signature = inspect.signature(body)

    def kernel(*args: Any, **kwargs: Any) -> Any:
        result: Any = (body if running.exact else function)(*args, **kwargs)
        bound, frame = signature.bind(*args, **kwargs), running.frame
        bound.apply_defaults()

        def again(name: str, value: Tensor) -> ReplacedCall:
            other = signature.bind(*args, **kwargs)
            other.arguments[name] = value
            with arithmetic_of(first(result)):
                output = first(body(*other.args, **other.kwargs))
            return ReplacedCall(frame.name, frame.module, {**arguments, name: value}, output)

        arguments = {**bound.arguments, **bound.arguments.get("kwargs", {})}
        return with_first(result, called(ReplacedCall(frame.name, frame.module, arguments, first(result), again)))

    # A second observer must find the arguments, but not pass over this one by unwrapping it.
    kernel.__signature__ = signature  # pyright: ignore[reportFunctionMemberAccess]
    return kernel


@dataclass(frozen=True, eq=False)
class PartCall:
    """One call of a part."""

    args: tuple[Any, ...]  # positional arguments
    kwargs: dict[str, Any]  # keyword arguments
    output: Any  # what it returned


@dataclass(frozen=True, eq=False)
class MixerCall:
    """One call of a mixer."""

    name: str  # its name in the model
    module: nn.Module  # the mixer
    parts: dict[str, PartCall] = field(default_factory=dict[str, PartCall])  # the latest call of each part, by its name


Parse = Callable[[MixerCall], Observation]


def source_of(classes: Sequence[str], parts: Sequence[str], parse: Parse, package: str = "") -> Source:
    """The source that observes the mixers of some classes, of a package if one is named, by their parts."""

    def hooks_of(module: nn.Module, running: ModuleStack, record: OnObservation) -> Generator[Any]:
        kept: dict[str, PartCall] = {}

        def keep(part: str, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: object) -> None:
            kept[part] = PartCall(args, kwargs, output)

        def leave(*_: object) -> None:
            call = MixerCall(running.frame.name, module, kept.copy())
            kept.clear()
            record(partial(parse, call))

        for part in parts:
            hook = in_this_thread(partial(keep, part))
            yield module.get_submodule(part).register_forward_hook(hook, with_kwargs=True)
        yield module.register_forward_hook(in_this_thread(leave), prepend=True)

    @contextmanager
    def observing(files: Sequence[ModuleType], running: ModuleStack, record: OnObservation) -> Generator[None]:
        del files
        with ExitStack() as stack:
            for _, module in running.parts:
                if is_a(module, classes, package):
                    for handle in hooks_of(module, running, record):
                        stack.callback(handle.remove)
            yield

    return observing
