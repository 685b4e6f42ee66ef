"""Documents as plain text and as rows that hold a text or a chat."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias, TypeVar, cast

from statesize.check import require_path
from statesize.errors import FileError
from statesize.io.files import os_errors, require_regular

BLANK_LINES = re.compile(r"\n(?:[^\S\n]*\n)+")
MESSAGES = "messages"
"""Field that holds the messages of a chat, where a row lacks the requested field."""
_Item = TypeVar("_Item")


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
"""File and row, and the document, or None and the problem of the row."""
Note: TypeAlias = Callable[[str], None]
"""Called with file, row and problem of each row that is left out."""


class RefusedChat(FileError):
    """A chat template refuses the messages of a row."""


def read_documents(path: str | Path) -> tuple[str, ...]:
    """The documents of a UTF-8 text file, between blank lines; line ends may be of any system."""
    parts = BLANK_LINES.split(read_whole(require_path("path", path)))
    documents = tuple(part.strip("\n") for part in parts if part.strip())
    if not documents:
        raise FileError(f"{path} must hold text, got none. Give a text file with at least one document.")
    return documents


def read_whole(path: Path) -> str:
    """The text of a UTF-8 file, blank lines and all."""
    with os_errors(f"{path}: cannot be read as a text file"):
        data = require_regular(path).read_bytes()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        wrong = f"byte {data[error.start]:#04x} at offset {error.start}"
        raise FileError(f"{path} must be UTF-8 text, got {wrong} ({error.reason}). Convert it.") from error
    if not data:
        raise FileError(f"{path} must hold text, got an empty file.")
    return text.replace("\r\n", "\n").replace("\r", "\n")


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


def evenly(items: Sequence[_Item], most: int) -> list[_Item]:
    """At most so many of some items, evenly spread; the first is among them."""
    count = min(most, len(items))
    return [items[len(items) * index // count] for index in range(count)]


def line_row(line: bytes, field: str, where: str) -> Row:
    """A line of JSON as a row; without `field`, "messages" is read."""
    try:
        values = json.loads(line.decode("utf-8-sig"))
    except ValueError as error:
        return where, None, f"no JSON in UTF-8 ({str(error).partition(':')[0]})"
    if not isinstance(values, dict):
        return where, None, f'no JSON object with text in the field "{field}"'
    return values_row(cast("dict[str, object]", values), field, where)


def values_row(values: Mapping[str, object], field: str, where: str) -> Row:
    """Values by name as a row; without `field`, "messages" is read."""
    name = field if field in values or MESSAGES not in values else MESSAGES
    if name not in values:
        return where, None, f'no text in the field "{field}"'
    value = values[name]
    document, text = _chat(value, where) if isinstance(value, list) else (value if name == field else None, value)
    if not isinstance(document, str | Chat):
        return (
            where,
            None,
            f'"{name}" holds {type(cast("object", value)).__name__}, no text or messages with a "role" and "content"',
        )
    try:
        cast("str", text).encode()
    except UnicodeEncodeError:
        return where, None, f'"{name}" holds a lone surrogate, which is no Unicode text'
    return where, document, ""


def _chat(messages: Any, where: str) -> tuple[Chat | None, str]:
    """A list of messages as a chat, and its text; None where it is none."""
    if not messages or not all(isinstance(message, dict) for message in messages):
        return None, ""
    # A column of Parquet has every name in every message.
    turns = [{key: value for key, value in message.items() if value is not None} for message in messages]
    if not all(isinstance(turn.get(key), str) for turn in turns for key in ("role", "content")):
        return None, ""
    return Chat(tuple(turns), where), json.dumps(turns, ensure_ascii=False, default=str)
