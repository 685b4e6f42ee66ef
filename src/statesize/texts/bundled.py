"""The bundled documents, which a model reads where no text is given, and the tokenizer of the bundled models."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Any, TypeVar, cast

from tokenizers import Tokenizer

from statesize.errors import FileError

_FORMAT = 1
DATA = files("statesize.texts") / "data"
Parsed = TypeVar("Parsed")


def documents() -> list[str]:
    """The bundled documents, plainest prose first: beginnings of what was held out in training the bundled models.

    Their sources and licence are in the file NOTICE beside them.

    Returns:
        The documents, without `<eos>`.

    Raises:
        FileError: their file is missing, damaged or of another version.
    """
    values = read_object(DATA, "documents.json")
    if values.get("format") != _FORMAT:
        raise FileError(
            f"bundled file documents.json has format {values.get('format')!r}; this statesize reads format "
            f"{_FORMAT}: install statesize again"
        )
    texts = values.get("documents")
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in cast("list[object]", texts)):
        raise FileError(_damaged("documents.json", "it has no list of documents"))
    return cast("list[str]", texts)


def tokenizer() -> Tokenizer:
    """The tokenizer of the bundled models: byte-level BPE with 4096 tokens, `<eos>` among them.

    A file that is missing or damaged is a FileError.

    Returns:
        A new instance at every call.
    """
    return read_bundled(DATA, "tokenizer.json", Tokenizer.from_str)


def read_bundled(data: Traversable, name: str, parse: Callable[[str], Parsed]) -> Parsed:
    """A text file of the package, parsed; a FileError where it is missing or damaged."""
    try:
        return parse(data.joinpath(*name.split("/")).read_text(encoding="utf-8"))
    except OSError as error:
        raise FileError(f"bundled file {name} is missing ({error}); install statesize again") from error
    except Exception as error:  # the class that tokenizers raises has no narrower name
        raise FileError(_damaged(name, str(error))) from error


def read_object(data: Traversable, name: str) -> dict[str, Any]:
    """A JSON object of the package."""
    values: object = read_bundled(data, name, json.loads)
    if not isinstance(values, dict):
        raise FileError(_damaged(name, f"it holds {type(values).__name__}, not a JSON object"))
    return cast("dict[str, Any]", values)


def _damaged(name: str, reason: str) -> str:
    return f"bundled file {name} is damaged ({reason}); install statesize again"
