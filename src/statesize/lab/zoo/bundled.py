"""Reads the bundled models and text from the package."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib.resources import as_file, files
from typing import Any, TypeVar, cast

from tokenizers import Tokenizer

from statesize.check import refuse
from statesize.errors import FileError
from statesize.lab.mixers.checkpoint import load_checkpoint
from statesize.lab.mixers.model import LanguageModel

NAMES = ("sa", "la", "wla", "gla")
RECALL_NAMES = tuple(f"recall-{name}" for name in NAMES)
DOCUMENTS_FORMAT = 1
DATA = files("statesize.lab.zoo")
Parsed = TypeVar("Parsed")


def names() -> tuple[str, ...]:
    """Names of the bundled models, which are those of their sequence mixers.

    Returns:
        Softmax, linear, weighted linear and gated linear attention, in this order.

    Examples:
        >>> names()
        ('sa', 'la', 'wla', 'gla')
    """
    return NAMES


def recall_names() -> tuple[str, ...]:
    """Names of the bundled models of re-binding recall, small siblings of the others.

    Returns:
        In the order of `names`.

    Examples:
        >>> recall_names()[0]
        'recall-sa'
    """
    return RECALL_NAMES


def load(name: str) -> tuple[LanguageModel, Tokenizer]:
    """A bundled model and its tokenizer.

    The models are siblings of one size, trained alike on the prose of CPython, or on re-binding recall; `record` says
    how.

    Args:
        name: one of `names()` or `recall_names()`.

    Returns:
        The model in evaluation mode, float32 on the CPU, and the tokenizer.
    """
    _check(name)
    with as_file(DATA / name) as folder:
        return load_checkpoint(folder), _tokenizer(
            f"{name}/tokenizer.json" if name in RECALL_NAMES else "tokenizer.json"
        )


def record(name: str) -> dict[str, Any]:
    """How a bundled model was trained: command, seed, data hash or task, loss curve, held-out figures.

    Args:
        name: one of `names()` or `recall_names()`.

    Returns:
        The JSON object of its training.json.
    """
    _check(name)
    return _json_object(f"{name}/training.json")


def tokenizer() -> Tokenizer:
    """The tokenizer of the bundled models: byte-level BPE with 1024 tokens, `<eos>` among them.

    A file that is missing or damaged is a FileError.

    Returns:
        A new instance at every call.
    """
    return _tokenizer("tokenizer.json")


def documents() -> list[str]:
    """The bundled documents: the held-out part of the text that the bundled models were trained on.

    Their source and licence are in the file NOTICE beside them.

    Returns:
        The documents, without `<eos>`.

    Raises:
        FileError: their file is missing, damaged or of another version.
    """
    values = _json_object("documents.json")
    if values.get("format") != DOCUMENTS_FORMAT:
        raise FileError(
            f"bundled file documents.json has format {values.get('format')!r}; this statesize reads format "
            f"{DOCUMENTS_FORMAT}: install statesize again"
        )
    texts = values.get("documents")
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in cast("list[object]", texts)):
        raise FileError(_damaged("documents.json", "it has no list of documents"))
    return cast("list[str]", texts)


def _check(name: str) -> None:
    if not isinstance(name, str) or name not in NAMES + RECALL_NAMES:  # pyright: ignore[reportUnnecessaryIsInstance]
        refuse("name", f"one of the bundled models {', '.join(NAMES + RECALL_NAMES)}", name)


def _tokenizer(file: str) -> Tokenizer:
    return _read(file, Tokenizer.from_str)


def _read(name: str, parse: Callable[[str], Parsed]) -> Parsed:
    try:
        return parse(DATA.joinpath(*name.split("/")).read_text(encoding="utf-8"))
    except OSError as error:
        raise FileError(f"bundled file {name} is missing ({error}); install statesize again") from error
    except Exception as error:  # the class that tokenizers raises has no narrower name
        raise FileError(_damaged(name, str(error))) from error


def _json_object(name: str) -> dict[str, Any]:
    values: object = _read(name, json.loads)
    if not isinstance(values, dict):
        raise FileError(_damaged(name, f"it holds {type(values).__name__}, not a JSON object"))
    return cast("dict[str, Any]", values)


def _damaged(name: str, reason: str) -> str:
    return f"bundled file {name} is damaged ({reason}); install statesize again"
