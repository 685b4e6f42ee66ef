"""The bundled models, and the bundled text that they are measured on."""

from __future__ import annotations

import json
from importlib.resources import as_file, files
from typing import TYPE_CHECKING, Any

from tokenizers import Tokenizer

from statesize.check import refuse
from statesize.texts.bundled import documents, read_bundled, tokenizer

if TYPE_CHECKING:
    from statesize.lab.mixers.model import LanguageModel

NAMES = ("sa", "la", "gla", "gated-deltanet")
RECALL_NAMES = ("recall-sa", "recall-la", "recall-wla", "recall-gla")
DATA = files("statesize.lab.zoo")
__all__ = ["documents", "load", "names", "recall_names", "record", "tokenizer"]
__dir__ = __all__.copy


def names() -> tuple[str, ...]:
    """Names of the bundled models, which are those of their mixers: softmax, (gated) linear, delta rule."""
    return NAMES


def recall_names() -> tuple[str, ...]:
    """Names of the bundled models of re-binding recall, small siblings of the others."""
    return RECALL_NAMES


def load(name: str) -> tuple[LanguageModel, Tokenizer]:
    """A bundled model, in evaluation mode and float32 on the CPU, and its tokenizer.

    The models are siblings of one size, trained alike on PEPs and CPython's documentation, or on re-binding recall;
    `record` says how.

    Args:
        name: One of `names()` or `recall_names()`.

    Returns:
        Both.
    """
    from statesize.lab.mixers.checkpoint import load_checkpoint

    with as_file(DATA / _known(name)) as folder:
        return load_checkpoint(folder), load_tokenizer(name)


def load_tokenizer(name: str) -> Tokenizer:
    """The tokenizer of a bundled model alone."""
    in_folder = _known(name) in RECALL_NAMES
    return read_bundled(DATA, f"{name}/tokenizer.json", Tokenizer.from_str) if in_folder else tokenizer()


def record(name: str) -> dict[str, Any]:
    """Training of a bundled model: command, seed, data hash or task, loss curve, held-out figures."""
    return read_bundled(DATA, f"{_known(name)}/training.json", json.loads)


def _known(name: str) -> str:
    if not isinstance(name, str) or name not in NAMES + RECALL_NAMES:  # pyright: ignore[reportUnnecessaryIsInstance]
        refuse("name", f"one of the bundled models {', '.join(NAMES + RECALL_NAMES)}", name)
    return name
