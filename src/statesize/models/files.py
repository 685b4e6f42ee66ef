"""The file of a tokenizer."""

from __future__ import annotations

from pathlib import Path

from tokenizers import Tokenizer

from statesize.errors import FileError
from statesize.io.files import replace_file

FILE = "tokenizer.json"
"""Its name."""


def write_tokenizer(folder: Path, tokenizer: Tokenizer) -> None:
    """Write tokenizer.json."""
    replace_file(folder / FILE, (tokenizer.to_str(pretty=True) + "\n").encode())


def read_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer of tokenizer.json, which must be there."""
    try:
        return Tokenizer.from_file(str(folder / FILE))  # pyright: ignore[reportUnknownMemberType]
    except Exception as error:  # the class that tokenizers raises has no narrower name
        raise FileError(f"{folder / FILE} must be a tokenizer, got {error}. Copy it again.") from error
