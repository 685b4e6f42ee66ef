"""The only file where the core reaches for the laboratory: bundled models, checkpoints of its trainings, its commands.

Everything is imported on use, so that measuring a model of one's own needs nothing of the laboratory.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from torch import nn


def bundled_names(*, recall: bool = False) -> tuple[str, ...]:
    """Names of the bundled models; with those of recall on request."""
    from statesize.lab import zoo

    return zoo.names() + (zoo.recall_names() if recall else ())


def is_bundled(name: str) -> bool:
    """Whether a name is that of a bundled model."""
    return name in bundled_names(recall=True)


def bundled_model(name: str) -> tuple[nn.Module, Tokenizer]:
    """A bundled model and its tokenizer."""
    from statesize.lab import zoo

    return zoo.load(name)


def bundled_record(name: str) -> dict[str, Any]:
    """How a bundled model was trained."""
    from statesize.lab import zoo

    return zoo.record(name)


def bundled_documents() -> tuple[Tokenizer, list[str]]:
    """The documents that a model reads without a text, and the tokenizer by which their lengths were chosen."""
    from statesize.lab import zoo

    return zoo.tokenizer(), zoo.documents()


def load_checkpoint(folder: str) -> nn.Module:
    """A model that was trained here."""
    from statesize.lab.mixers import load_checkpoint

    return load_checkpoint(folder)


def trained_model(model: object) -> Any:
    """A model that was trained here, as one whose states can be cut; None for others."""
    from statesize.lab.compression.trained import TrainedModel
    from statesize.lab.mixers.model import LanguageModel

    return TrainedModel(model) if isinstance(model, LanguageModel) else None


def add_commands() -> None:
    """Register the laboratory's commands."""
    from statesize.lab.cli import commands

    commands.add_commands()
