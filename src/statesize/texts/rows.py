"""Documents out of rows: texts and chats."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar, cast

from statesize.errors import FileError

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


def row_document(row: object, field: str, where: str) -> Document:
    """The text or chat of a row: a text, messages, or a mapping with either in a field; a ValueError without one."""
    values: Mapping[str, Any] = cast("Any", row) if isinstance(row, Mapping) else {field: row}
    name = field if field in values or MESSAGES not in values else MESSAGES
    value: Any = values.get(name)
    # Half a pair of UTF-16 is no text.
    json.dumps(value, ensure_ascii=False, default=str).encode()
    if isinstance(value, str) and name == field:
        return value
    messages = cast("list[Any]", value) if isinstance(value, list) else []
    are_turns = [
        isinstance(turn, Mapping) and all(isinstance(turn.get(key), str) for key in ("role", "content"))
        for turn in messages
    ]
    if not are_turns or not all(are_turns):
        raise ValueError(f'no text, nor messages with a "role" and "content", in the field "{name}"')
    # A column of Parquet has every name in every message.
    turns = tuple({key: entry for key, entry in turn.items() if entry is not None} for turn in messages)
    return Chat(turns, where)


def evenly(items: Sequence[_Item], most: int) -> list[_Item]:
    """At most so many of some items, evenly spread; the first is among them."""
    count = min(most, len(items))
    return [items[len(items) * index // count] for index in range(count)]
