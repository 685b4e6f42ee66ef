"""Reads the bundled models from the package."""

from __future__ import annotations

import json
from importlib.resources import as_file, files
from typing import TYPE_CHECKING, Any

from tokenizers import Tokenizer

from statesize.check import refuse
from statesize.texts.bundled import read_bundled, tokenizer

if TYPE_CHECKING:
    from statesize.lab.mixers.model import LanguageModel

NAMES = ("sa", "la", "gla", "gated-deltanet")
RECALL_NAMES = ("recall-sa", "recall-la", "recall-wla", "recall-gla")
DATA = files("statesize.lab.zoo")


def names() -> tuple[str, ...]:
    """Names of the bundled models, which are those of their sequence mixers.

    Returns:
        Softmax, linear and gated linear attention, and the gated delta rule, in this order.

    Examples:
        >>> names()
        ('sa', 'la', 'gla', 'gated-deltanet')
    """
    return NAMES


def recall_names() -> tuple[str, ...]:
    """Names of the bundled models of re-binding recall, small siblings of the others.

    Returns:
        Softmax, linear, weighted linear and gated linear attention.

    Examples:
        >>> recall_names()[0]
        'recall-sa'
    """
    return RECALL_NAMES


def load(name: str) -> tuple[LanguageModel, Tokenizer]:
    """A bundled model and its tokenizer.

    The models are siblings of one size, trained alike on PEPs and CPython's documentation, or on re-binding recall;
    `record` says how.

    Args:
        name: one of `names()` or `recall_names()`.

    Returns:
        The model in evaluation mode, float32 on the CPU, and the tokenizer.
    """
    return load_bundled(name), load_tokenizer(name)


def load_bundled(name: str) -> LanguageModel:
    """A bundled model alone."""
    from statesize.lab.mixers.checkpoint import load_checkpoint

    _check(name)
    with as_file(DATA / name) as folder:
        return load_checkpoint(folder)


def load_tokenizer(name: str) -> Tokenizer:
    """The tokenizer of a bundled model alone."""
    _check(name)
    return read_bundled(DATA, f"{name}/tokenizer.json", Tokenizer.from_str) if name in RECALL_NAMES else tokenizer()


def record(name: str) -> dict[str, Any]:
    """How a bundled model was trained: command, seed, data hash or task, loss curve, held-out figures.

    Args:
        name: one of `names()` or `recall_names()`.

    Returns:
        The JSON object of its training.json.
    """
    _check(name)
    return read_bundled(DATA, f"{name}/training.json", json.loads)


def _check(name: str) -> None:
    if not isinstance(name, str) or name not in NAMES + RECALL_NAMES:  # pyright: ignore[reportUnnecessaryIsInstance]
        refuse("name", f"one of the bundled models {', '.join(NAMES + RECALL_NAMES)}", name)
