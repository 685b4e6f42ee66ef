"""Which modules of a model are running, kept by hooks."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from statesize.adapters.models.wrapped import named_parts

Leave = Callable[["Frame", Any], None]


@dataclass(eq=False)
class Frame:
    """A module that is running."""

    name: str  # its name in the model; the class name for the model itself
    module: nn.Module  # the module
    args: tuple[Any, ...]  # the positional arguments that it was called with
    kwargs: dict[str, Any]  # the keyword arguments


@dataclass(eq=False)
class Running:
    """The modules that are running, outermost first."""

    length: int  # positions of the text that the model runs over
    frames: list[Frame] = field(default_factory=list[Frame])  # one for each

    @property
    def frame(self) -> Frame:
        """The innermost module that is running."""
        return self.frames[-1]


@contextmanager
def running_modules(model: nn.Module, length: int, on_leave: Leave | None = None) -> Generator[Running]:
    """Keep track of the modules that run while this is open."""
    running = Running(length)

    def entering(name: str) -> Callable[..., None]:
        def enter(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            running.frames.append(Frame(name, module, args, kwargs))

        return enter

    def leave(module: nn.Module, args: tuple[Any, ...], output: object) -> None:
        # A module below may have failed before its own hook could take it off.
        while running.frames.pop().module is not module:
            pass

    with ExitStack() as hooks:
        for name, module in named_parts(model):
            label = name or type(model).__name__
            handle = module.register_forward_pre_hook(entering(label), prepend=True, with_kwargs=True)
            hooks.callback(handle.remove)
            if on_leave is not None:
                tell = module.register_forward_hook(lambda module, args, output: on_leave(running.frame, output))
                hooks.callback(tell.remove)
            hooks.callback(module.register_forward_hook(leave, always_call=True).remove)
        yield running
