"""Documents as plain text and as rows that hold a text or a chat."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias, cast

from statesize.check import require_path
from statesize.errors import FileError
from statesize.io.files import os_errors, parse_json, read_limited

MOST_TEXT = 2**30
"""Bytes of a text file that is read; JSONL and Parquet files, which are read piece by piece, may have any size."""


BLANK_LINES = re.compile(r"\n(?:[^\S\n]*\n)+")


def read_documents(path: str | Path) -> tuple[str, ...]:
    """The documents of a UTF-8 text file, between blank lines; line ends may be of any system."""
    parts = BLANK_LINES.split(read_whole(require_path("path", path)))
    documents = tuple(part.strip("\n") for part in parts if part.strip())
    if not documents:
        raise FileError(f"{path}: holds no text. Give a text file with at least one document.")
    return documents


def is_parted(text: str) -> bool:
    """Whether blank lines stand in a text."""
    return len(BLANK_LINES.split(text)) > 1


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


MOST_LINE = 256 * 2**20
"""Bytes of a line of a JSONL file; a longer line is a bad row."""

MESSAGES = "messages"
"""Field that holds the messages of a chat, where a row lacks the requested field."""

_SKIPPED = 2**20


@dataclass(frozen=True)
class Chat:
    """The messages of a chat.

    Attributes:
        messages: Each with text under "role" and "content".
        where: The file and row that hold the chat.
    """

    messages: tuple[Mapping[str, object], ...]
    where: str


Document: TypeAlias = str | Chat
Row: TypeAlias = tuple[str, Document | None, str]
"""File and row, and the document, or None and what is wrong with the row."""
Note: TypeAlias = Callable[[str], None]
"""Called with file, row and problem of each row that is left out."""


class RefusedChat(FileError):
    """A chat template refuses the messages of a row."""


def readable(rows: Iterable[Row], note: Note, otherwise: str) -> Iterator[Document]:
    """The documents of rows, whose problems are noted; a FileError with the last argument where there is none."""
    any_read = False
    for where, document, problem in rows:
        if document is None:
            note(f"{where}: {problem}")
        else:
            any_read = True
            yield document
    if not any_read:
        raise FileError(otherwise)


def evenly(items: Sequence[Any], most: int) -> list[Any]:
    """At most so many of some items, evenly spread; the first is among them."""
    count = min(most, len(items))
    return [items[len(items) * index // count] for index in range(count)]


def read_lines(stream: BinaryIO) -> Iterator[bytes | None]:
    """The lines of a file, one in memory at a time; None instead of a line that is too long."""
    while line := stream.readline(MOST_LINE + 1):
        whole = len(line) <= MOST_LINE
        rest = line
        while not whole and rest and not rest.endswith(b"\n"):
            rest = stream.readline(_SKIPPED)
        yield line if whole else None


def line_row(line: bytes | None, field: str, where: str) -> Row:
    """A line of JSON as a row; without `field`, "messages" is read."""
    if line is None:
        return where, None, f"more than {MOST_LINE:,} bytes"
    try:
        row = parse_json(line.decode("utf-8-sig"))
    except UnicodeDecodeError:
        return where, None, "not UTF-8"
    except ValueError as error:
        return where, None, f"no JSON ({str(error).partition(':')[0]})"
    if not isinstance(row, dict):
        return where, None, f'no JSON object with text in the field "{field}"'
    return values_row(cast("dict[str, object]", row), field, where)


def values_row(values: Mapping[str, object], field: str, where: str) -> Row:
    """Values by name as a row; without `field`, "messages" is read."""
    name = field if field in values or MESSAGES not in values else MESSAGES
    value = values.get(name)
    if isinstance(value, list):
        return _chat(name, cast("list[object]", value), where)
    if name not in values:
        return where, None, f'no text in the field "{field}"'
    if not isinstance(value, str) or name != field:
        expected = "text" if name == field else "a list of messages"
        return where, None, f'"{name}" is {type(value).__name__}, not {expected}'
    return _unicode(name, value, value, where)


def _chat(name: str, messages: list[object], where: str) -> Row:
    """A list of messages as a row."""
    if not all(isinstance(message, dict) for message in messages):
        return where, None, f'"{name}" is list, not text or messages'
    if not messages:
        return where, None, f'"{name}" holds no message'
    # A column of Parquet has every name in every message.
    turns = [
        {key: value for key, value in message.items() if value is not None}
        for message in cast("list[dict[str, object]]", messages)
    ]
    for number, message in enumerate(turns, 1):
        if not isinstance(message.get("role"), str) or not isinstance(message.get("content"), str):
            return where, None, f'message {number} of "{name}" lacks text under "role" or "content"'
    return _unicode(name, Chat(tuple(turns), where), json.dumps(turns, ensure_ascii=False, default=str), where)


def _unicode(name: str, document: Document, text: str, where: str) -> Row:
    """A document as a row, if its text is one that UTF-8 can hold."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return where, None, f'"{name}" holds a lone surrogate, which is no Unicode text'
    return where, document, ""
