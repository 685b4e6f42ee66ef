"""Models that other packages bring: names and folders that `profile` and all other commands then take.

A package names an instance of its subclass of `ModelPlugin` as an entry point of the group `statesize.models`. The
laboratory plugs its models in so, and measuring works without it.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from contextlib import suppress
from contextvars import ContextVar
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from statesize.errors import FileError, ModelError
from statesize.io.files import is_gguf
from statesize.io.plugins import loaded_plugins
from statesize.io.text import LIKENESS, meant

if TYPE_CHECKING:
    from torch import nn

    from statesize.texts.tokens import AnyTokenizer

MODELS = "statesize.models"
"""Group of entry points, each an instance of `ModelPlugin`."""
COMMAND: ContextVar[str] = ContextVar("COMMAND", default="")
"""The command for which a model is looked up: messages name the models that it takes."""
_ALIKE = 0.85
"""Likeness of a name to that of a model that is here above which the hub is not queried for it."""


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

    def titles(self) -> dict[str, str]:
        """Names by what else readers call the models, such as {"softmax": "sa"}, which a message then suggests."""
        return {}

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
        """How a model that is known was trained; empty where that is not said."""
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


def _taken(models: dict[str, str]) -> dict[str, str]:
    """Those of some models that no plug-in refuses for the command."""
    taken: dict[str, str] = {}
    for alike, model in models.items():
        with suppress(ModelError):
            if plugin := plugin_of(model):
                plugin.check(model, COMMAND.get())
            taken[alike] = model
    return taken


def no_model(name: str, why: str) -> str:
    """Says what a model may be, of those for the command, and why a name is none; advice follows."""
    names = ", ".join(_taken({known: known for plugin in model_plugins() for known in plugin.names()}))
    kinds = f"{f'a name ({names}), ' if names else ''}a folder, a GGUF file or an id of the Hugging Face hub"
    return f"model must be {kinds}, got {name!r}, which {why}.{unfinished(Path(name))}"


def is_mamba_ssm(config: dict[str, Any]) -> bool:
    """Whether a config.json is one of mamba_ssm."""
    return "model_type" not in config and {"d_model", "n_layer"} <= config.keys()


PROFILE_MARKER = "profile.json"
"""The file by which a folder is one of a profile."""


def parts_folder(profile: Path) -> Path:
    """Where the finished parts of a profile lie until it is complete."""
    return profile.with_name(f"{profile.name}.units")


def unfinished(profile: Path) -> str:
    """Says where the finished parts of a profile lie that is not complete; "" for others."""
    # A name that is too long for a file does not exist for os.path.
    if not profile.name or not os.path.isdir(parts := parts_folder(profile)):
        return ""
    return f" Finished parts of a profile are in {parts}: the command that began it goes on from there."


_OF_MODELS = ("config.json", "adapter_config.json")
_INSIDE = "Give the folder that has it."


def refuse_profile(name: str) -> None:
    """Refuse the folder of a profile, or its file, where a model is wanted."""
    path = Path(name).parent if Path(name).name == PROFILE_MARKER else Path(name)
    if not is_brought(name) and (path / PROFILE_MARKER).is_file() and not (path / "config.json").exists():
        raise FileError(
            f"{name} is a profile, not a model. Give the model; `statesize profile {path}` and "
            f"statesize.Profile.load({str(path)!r}) read the profile."
        )


def refuse_misspelt(name: str) -> None:
    """Refuse what can only be a folder and is not there, or is spelt almost as a model that is here, before the hub."""
    path = Path(name).expanduser()
    if path.is_file() and not is_gguf(path):
        raise FileError(f"model must be a folder with its config.json, or a GGUF file, got the file {name}. Give one.")
    if plugin_of(name):
        return
    if path.is_dir() and not any((path / part).is_file() for part in (*_OF_MODELS, PROFILE_MARKER)):
        inside = _taken(_models_in(path))
        raise FileError(no_model(name, "has no config.json") + f" {meant(path.name, inside, _INSIDE, 0)}")
    if path.exists():
        return
    kind = "file" if path.suffix == ".gguf" else "folder"
    starts = (".", "/", "~")
    local = kind == "file" or name.startswith(starts) or name.count("/") > 1 or ("/" in name and path.parent.is_dir())
    models = _models_in(path.parent) if local or "/" not in name else {}
    for plugin in model_plugins() if "/" not in name else ():
        models |= plugin.titles() | {known: known for known in plugin.names()}
    likeness = LIKENESS if local else _ALIKE
    if local or meant(path.name, models, "", likeness):
        advice = meant(path.name, _taken(models), f"Give a {kind} that is there.", likeness)
        raise FileError(f"{no_model(name, f'is no {kind}')} {advice}")


def _models_in(folder: Path) -> dict[str, str]:
    """Folders of models and GGUF files in a folder, by name."""
    inside = sorted(folder.iterdir()) if folder.is_dir() else []
    return {one.name: str(one) for one in inside if (one / "config.json").is_file() or one.suffix == ".gguf"}
