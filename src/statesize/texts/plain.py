"""Plain text files: UTF-8, whole or as the documents between blank lines."""

from __future__ import annotations

import re
from pathlib import Path

from statesize.check import require_kind, require_path
from statesize.errors import FileError, InputError
from statesize.files import os_errors, read_limited

MOST_TEXT = 2**30
"""Bytes of a text file that is read; JSONL and Parquet files, which are read piece by piece, may have any size."""


BLANK_LINES = re.compile(r"\n(?:[^\S\n]*\n)+")


def read_documents(path: str | Path, delimiter: str | None = None) -> tuple[str, ...]:
    """The documents of a UTF-8 text file, between blank lines or `delimiter`; line ends may be of any system."""
    path = require_path("path", path)
    require_kind("delimiter", delimiter, (str, type(None)), "a string or None")
    if delimiter == "":
        raise InputError("delimiter must be the text that stands between documents, or None, got ''.")
    text = read_whole(path)
    parts = BLANK_LINES.split(text) if delimiter is None else text.split(delimiter)
    documents = tuple(part.strip("\n") for part in parts if part.strip())
    if not documents:
        raise FileError(f"{path}: holds no text. Give a text file with at least one document.")
    return documents


def read_whole(path: Path) -> str:
    """The text of a UTF-8 file, blank lines and all."""
    with os_errors(f"{path}: cannot be read as a text file"):
        data = read_limited(path, MOST_TEXT)
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise FileError(
            f"{path}: not UTF-8 text: byte {data[error.start]:#04x} at byte offset {error.start} ({error.reason}); "
            "convert the file to UTF-8 first"
        ) from error
    if not data:
        raise FileError(f"{path} is empty. Give a file with text.")
    return text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
