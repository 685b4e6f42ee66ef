"""The bundled documents, which a model reads where no text is given, and the tokenizer of the bundled models."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import TypeVar

from tokenizers import Tokenizer

from statesize.errors import FileError

DATA = files("statesize.texts") / "data"
TOKENIZER = "tokenizer.json"
"""The file of a tokenizer."""
_Parsed = TypeVar("_Parsed")


def documents() -> list[str]:
    """The bundled documents, plainest prose first: beginnings of what was held out in training the bundled models."""
    # Their sources and licence are in the file NOTICE beside them.
    return read_bundled(DATA, "documents.json", lambda text: json.loads(text)["documents"])


def tokenizer() -> Tokenizer:
    """The tokenizer of the bundled models, new at each call: byte-level BPE with 4096 tokens, `<eos>` among them."""
    return read_bundled(DATA, TOKENIZER, Tokenizer.from_str)


def read_bundled(data: Traversable, name: str, parse: Callable[[str], _Parsed]) -> _Parsed:
    """A text file of the package, or of a folder, parsed; a FileError where it is missing or damaged."""
    try:
        return parse(data.joinpath(*name.split("/")).read_text(encoding="utf-8"))
    except Exception as error:  # the class that tokenizers raises has no narrower name
        raise FileError(f"{name} of {data} is missing or damaged ({error}). Install or copy it again.") from error
