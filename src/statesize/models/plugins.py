"""Models that other packages bring: names and folders that `profile` and all other commands then take.

A package names an instance of its subclass of `ModelPlugin` as an entry point of the group `statesize.models`. The
laboratory plugs its models in so, and measuring works without it.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from statesize.errors import FileError
from statesize.io.plugins import loaded_plugins

if TYPE_CHECKING:
    from torch import nn

    from statesize.texts.tokens import AnyTokenizer

MODELS = "statesize.models"
"""Group of entry points, each an instance of `ModelPlugin`."""


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

    def check(self, name: str, command: str) -> None:
        """Refuse a model that is known for a command that cannot use it, before torch is imported.

        Raises:
            ModelError: The command, such as "cache", is for others.
        """
        del name, command

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
        """The training of a model that is known; empty where that is not said."""
        del name
        return {}


@cache
def model_plugins() -> tuple[ModelPlugin, ...]:
    """All that are installed; one that cannot be loaded is skipped with a warning."""
    return tuple(loaded_plugins(MODELS, ModelPlugin))


def plugin_of(name: str) -> ModelPlugin | None:
    """The first plug-in that knows a name or a folder, if any does."""
    return next((plugin for plugin in model_plugins() if plugin.knows(name)), None)


def is_brought(name: str) -> bool:
    """Whether a plug-in brings a model of this name, for which it stands whatever lies in a folder of that name."""
    return any(name in plugin.names() for plugin in model_plugins())


def is_gguf(path: Path) -> bool:
    """Whether a path is that of a GGUF file, by its first bytes."""
    # What is too long for a name, or has a zero in it, is no file for os.path.
    if not os.path.isfile(path):
        return False
    with path.open("rb") as stream:
        return stream.read(4) == b"GGUF"


def no_model(name: str, reason: str) -> str:
    """The message for a name that is none of a model."""
    kinds = [*(known for plugin in model_plugins() for known in plugin.names()), "a folder, a GGUF file or an id of"]
    return f"model must be {', '.join(kinds)} the Hugging Face hub, got {name!r}, which {reason}. Check the name."


def refuse_name(name: str) -> ModelPlugin | None:
    """Refuse what is no model of this machine and can be none of the hub; of others the plug-in, if one knows it."""
    path = Path(name)
    if (plugin := plugin_of(name)) or is_gguf(path) or (path / "config.json").is_file():
        return plugin
    if path.exists():
        raise FileError(no_model(name, "has no config.json of a model"))
    if path.suffix == ".gguf" or name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise FileError(no_model(name, "is not there"))
    return None
