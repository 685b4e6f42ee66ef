"""Mixers that are no one function: what their parts take and return is kept until the mixer itself returns."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from torch import nn

from statesize.adapters.models.wrapped import named_parts
from statesize.adapters.watching.observation import Observation, Record, Source
from statesize.adapters.watching.running import Running


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
    # The latest call of each of its parts, by the part's name in the mixer.
    parts: dict[str, PartCall] = field(default_factory=dict[str, PartCall])


Parse = Callable[[MixerCall], Observation]


def is_a(module: nn.Module, classes: Sequence[str]) -> bool:
    """Whether a module's class, or one that it derives from, has one of some names."""
    return any(kind.__name__ in classes for kind in type(module).__mro__)


@contextmanager
def observing_parts(
    model: nn.Module, classes: Sequence[str], parts: Sequence[str], parse: Parse, record: Record
) -> Generator[None]:
    """Observe the mixers of some classes while this is open."""
    with ExitStack() as hooks:
        for name, module in named_parts(model):
            if is_a(module, classes):
                call = MixerCall(name or type(model).__name__, module)
                for part in parts:
                    keep = _keeping(call, part)
                    handle = module.get_submodule(part).register_forward_hook(keep, with_kwargs=True)
                    hooks.callback(handle.remove)
                handle = module.register_forward_hook(_recording(call, parse, record), prepend=True)
                hooks.callback(handle.remove)
        yield


def source_of(classes: Sequence[str], parts: Sequence[str], parse: Parse) -> Source:
    """The source that observes the mixers of some classes by their parts."""

    def observing(model: nn.Module, running: Running, record: Record) -> AbstractContextManager[None]:
        del running
        return observing_parts(model, classes, parts, parse, record)

    return observing


def _keeping(call: MixerCall, part: str) -> Callable[..., None]:
    def keep(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: object) -> None:
        call.parts[part] = PartCall(args, kwargs, output)

    return keep


def _recording(call: MixerCall, parse: Parse, record: Record) -> Callable[..., None]:
    def returned(module: nn.Module, args: tuple[Any, ...], output: object) -> None:
        try:
            record(partial(parse, MixerCall(call.name, module, dict(call.parts))))
        finally:
            call.parts.clear()

    return returned
