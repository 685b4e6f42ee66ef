"""Models that other packages bring: names and folders that `profile` and all other commands then take.

A package names an instance of its subclass of `ModelPlugin` as an entry point of the group `statesize.models`. The
laboratory plugs its models in so, and measuring works without it.
"""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator
from functools import cache
from importlib.metadata import entry_points
from typing import Any, TypeVar, cast

from torch import nn

from statesize.errors import StatesizeWarning
from statesize.texts.tokens import AnyTokenizer

MODELS, COMMANDS = "statesize.models", "statesize.commands"
"""Groups of entry points."""
Kind = TypeVar("Kind")


class ModelPlugin(ABC):
    """Models that a package brings, by name or in folders of its own kind.

    Subclasses pass `statesize.testing.ModelPluginContract`.

    Example:
        In `pyproject.toml` of the package that brings them::

            [project.entry-points."statesize.models"]
            mine = "my_package.measured:MODELS"
    """

    @abstractmethod
    def names(self) -> tuple[str, ...]:
        """Names of the models that need no folder, as they stand in lists and messages."""

    @abstractmethod
    def knows(self, name: str) -> bool:
        """Whether a name, or the path of a folder, is that of a model that can be loaded here."""

    @abstractmethod
    def model(self, name: str) -> nn.Module:
        """A model that is known, in evaluation mode on the CPU.

        Raises:
            FileError: Its files are missing or damaged.
        """

    @abstractmethod
    def tokenizer(self, name: str) -> AnyTokenizer | None:
        """The tokenizer of a model that is known; None where none is beside it.

        Raises:
            FileError: It is there, and damaged.
        """

    def record(self, name: str) -> dict[str, Any]:
        """How a model that is known was trained; empty where that is not said."""
        del name
        return {}

    def reducible(self, model: nn.Module) -> object | None:
        """A model as a `statesize.reduction.reducible.Reducible`, if its states can be cut; None for others."""
        del model
        return None


@cache
def model_plugins() -> tuple[ModelPlugin, ...]:
    """All that are installed; one that cannot be loaded is skipped with a warning."""
    return tuple(loaded_plugins(MODELS, ModelPlugin))


def loaded_plugins(group: str, kind: type[Kind]) -> Iterator[Kind]:
    """The objects of a group of entry points, which must be of a class."""
    for entry in entry_points(group=group):
        try:
            plugin = cast("object", entry.load())
        except Exception as error:  # whatever another package raises where it is imported
            reason = f"{type(error).__name__}: {error}"
        else:
            if isinstance(plugin, kind):
                yield plugin
                continue
            reason = f"it is no {kind.__name__}"
        warnings.warn(f"The plug-in {entry.value} is left out: {reason}", StatesizeWarning, stacklevel=2)


def plugin_of(name: str) -> ModelPlugin | None:
    """The first plug-in that knows a name or a folder, if any does."""
    return next((plugin for plugin in model_plugins() if plugin.knows(name)), None)


def named_models() -> str:
    """The models that plug-ins bring, as messages list them before other kinds: "a name (sa, gla), "."""
    names = [name for plugin in model_plugins() for name in plugin.names()]
    return f"a name ({', '.join(names)}), " if names else ""
