"""Documents: texts of UTF-8 files, and texts and chats of rows."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
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


class RefusedChat(FileError):
    """A chat template refuses the messages of a row."""


def read_documents(path: str | Path) -> tuple[str, ...]:
    """The documents of a UTF-8 text file, between blank lines."""
    parts = BLANK_LINES.split(read_whole(require_path("path", path)))
    return tuple(part.strip("\n") for part in parts if part.strip())


def read_whole(path: Path) -> str:
    """The text of a UTF-8 file, blank lines and all; line ends may be of any system."""
    with os_errors(f"{path} cannot be read"):
        content = require_regular(path).read_bytes()
    with os_errors(f"{path} must be UTF-8 text", "Convert it.", UnicodeDecodeError):
        text = content.decode("utf-8-sig")
    if not text.strip():
        raise FileError(f"{path} must hold text, got none.")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def row_document(row: object, field: str, where: str) -> Document:
    """The text or chat of a row: a text, messages, or a mapping with either in a field; a ValueError without one."""
    values: Mapping[str, Any] = cast("Any", row) if isinstance(row, Mapping) else {field: row}
    name = field if field in values or MESSAGES not in values else MESSAGES
    value: Any = values.get(name)
    document: Document | None = value if isinstance(value, str) and name == field else None
    messages = cast("list[Any]", value) if isinstance(value, list) else []
    if messages and all(isinstance(turn, Mapping) for turn in messages):
        # A column of Parquet has every name in every message.
        turns = tuple({key: entry for key, entry in turn.items() if entry is not None} for turn in messages)
        if all(isinstance(turn.get(key), str) for turn in turns for key in ("role", "content")):
            document, value = Chat(turns, where), json.dumps(turns, ensure_ascii=False, default=str)
    if document is None:
        raise ValueError(f'no text, nor messages with a "role" and "content", in the field "{name}"')
    cast("str", value).encode()
    return document


def evenly(items: Sequence[_Item], most: int) -> list[_Item]:
    """At most so many of some items, evenly spread; the first is among them."""
    count = min(most, len(items))
    return [items[len(items) * index // count] for index in range(count)]
