"""Mixers by name: those of this package, and one's own."""

from __future__ import annotations

import inspect
import re

from torch import nn

from statesize.check import refuse, require_kind
from statesize.errors import InputError

MIXERS: dict[str, type[nn.Module]] = {}
"""The package's own mixers by the name that `ModelConfig.mixer` uses; `statesize.lab.mixers.block` lists them."""

_REGISTERED: dict[str, type[nn.Module]] = {}


def register_mixer(name: str, mixer: type[nn.Module]) -> None:
    """Makes a mixer of your own known by a name, wherever a mixer is named: `ModelConfig`, patterns, grids of studies.

    `mixer(config)` gets the `ModelConfig` of its model. It maps hidden states (S, L, config.width) to the same shape,
    and has a method `operator(hidden)` for the T of each of its heads or channels. Its weights keep the first values
    that it gives them, and what it draws at random for them follows the generator of the model; those of a subclass of
    `Mixer` start as the package's own.

    Args:
        name: Its name, of letters, digits, "-" and "_". A name is taken once; running the definition of the same class
            again, as in a notebook, replaces it.
        mixer: The class.

    Raises:
        InputError: The name cannot be used or is taken, or the class is no module with a method `operator`.
    """
    require_kind("name", name, str, "a string")
    if not re.fullmatch(r"[\w-]+", name):
        refuse("name", "letters, digits, - and _", name)
    if not (inspect.isclass(mixer) and issubclass(mixer, nn.Module)):  # pyright: ignore[reportUnnecessaryIsInstance]
        refuse("mixer", "a class that inherits torch.nn.Module", mixer)
    if not callable(getattr(mixer, "operator", None)):
        raise InputError(
            f"mixer must have a method operator(hidden) that returns an Operator, got {mixer.__name__} without."
        )
    known = _REGISTERED.get(name, mixer)
    same = (known.__module__, known.__qualname__) == (mixer.__module__, mixer.__qualname__)
    if name in MIXERS or not same:
        raise InputError(f"name must be one that no other mixer has, got {name!r}.")
    _REGISTERED[name] = mixer


def mixer_names() -> tuple[str, ...]:
    """The names that `ModelConfig` knows: the package's own, then those that were registered."""
    return (*MIXERS, *_REGISTERED)


def registered_mixer(name: str) -> type[nn.Module]:
    """The class that was registered by a name."""
    return _REGISTERED[name]
