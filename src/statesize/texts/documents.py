"""Documents out of files: plain text, JSONL or Parquet; and token ids, for models without a tokenizer."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from statesize.check import require_kind
from statesize.errors import FileError, InputError
from statesize.io.files import os_errors, parse_json, read_limited, require_regular
from statesize.texts import rows
from statesize.texts.rows import (
    Document,
    Note,
    Row,
    line_row,
    read_documents,
    read_lines,
    read_whole,
    readable,
    values_row,
)
from statesize.texts.tables import parquet


def jsonl(path: Path, field: str, note: Note) -> Iterator[Document]:
    """The documents of a file of JSON objects, one per line; it is read as far as these are used."""
    wanted = f'is a JSON object with text in a field "{field}". Give --field NAME'
    return readable(_rows(path, field), note, f"{path}: no row {wanted}.")


def _rows(path: Path, field: str) -> Iterator[Row]:
    number = 0
    with os_errors(f"{path}: cannot be read as a JSONL file"), require_regular(path).open("rb") as stream:
        for number, line in enumerate(read_lines(stream), 1):
            if line is None or line.strip():
                yield line_row(line, field, f"{path}, line {number}")
    if not number:
        raise FileError(f"{path} is empty. Give a file with a JSON object on each line.")


_LIST = 'Give a JSON list of texts, of objects with a field "text", or of chats; objects on lines are .jsonl'


def json_list(path: Path, field: str, note: Note) -> Iterator[Document]:
    """The documents of a JSON list of texts, of objects or of chats; the messages of one chat are one document."""
    wanted = f'holds text, a chat or a field "{field}". {_LIST}'
    return readable(_items(path, field), note, f"{path}: no row {wanted}.")


def _items(path: Path, field: str) -> Iterator[Row]:
    try:
        values = parse_json(read_whole(path))
    except ValueError as error:
        reason = " ".join(str(error).split())[:200]
        raise FileError(f"{path} must be JSON, got what is none ({reason}). {_LIST}.") from error
    if not isinstance(values, list):
        raise FileError(f"{path} must be a JSON list, got {_shown(values)}. {_LIST}.")
    items = cast("list[object]", values)
    if items and all(isinstance(item, dict) and "role" in item for item in items):
        items = [items]
    named = (cast("dict[str, object]", item) if isinstance(item, dict) else {field: item} for item in items)
    return (values_row(values, field, f"{path}, item {number}") for number, values in enumerate(named, 1))


SOURCES = {".jsonl": jsonl, ".ndjson": jsonl, ".json": json_list, ".parquet": parquet}
"""What reads a file of many sequences, by the suffix of its name; other files are text."""


def is_rows(path: Path) -> bool:
    """Whether a file holds many sequences, by its name."""
    return path.suffix.lower() in SOURCES


def _refuse(problem: str, advice: str = "Mend it, or leave it out.") -> None:
    raise FileError(f"{problem}. {advice}")


def read_file(path: Path, field: str = "text", note: Note = _refuse, *, whole: bool = False) -> Iterator[Document]:
    """The documents of a file; blank lines part those of text, unless it is one as a whole."""
    if is_rows(path):
        return SOURCES[path.suffix.lower()](path, field, note)
    return iter((read_whole(path),) if whole else read_documents(path))


def file_documents(path: Path, *, corpus: bool = False, field: str | None = None) -> Iterator[tuple[Document, ...]]:
    """The sequences of a file: a text file as one document, or as all those of a corpus; each row as one."""
    # The option --field says the field of a command.
    if is_rows(path):
        note = partial(_refuse, advice="Give --field NAME, or mend the row.") if field else _refuse
        yield from ((document,) for document in read_file(path, field or "text", note))
    else:
        documents = read_documents(path)
        yield documents if corpus or len(documents) == 1 else (read_whole(path).strip("\n"),)


def listed(name: str, documents: Iterable[str]) -> list[str]:
    """Documents as a list."""
    if isinstance(documents, str):
        raise InputError(f"{name} must be a sequence of documents, got one string. For one document, give [text].")
    require_kind(name, documents, Iterable, "a sequence of strings")
    items = list(documents) if getattr(documents, "ndim", 1) else [documents]
    for document in items:
        if not isinstance(document, str):
            raise InputError(f"{name} must be a sequence of strings, got one with {type(document).__name__}.")
        try:
            document.encode()
        except UnicodeEncodeError as error:
            raise InputError(f"{name} must be Unicode text, got {document[:40]!r} ({error.reason}).") from error
    return cast("list[str]", items)


_DO = "Give a JSON list of token ids, or one such list on each line"


def read_token_ids(path: Path, vocabulary: int | None) -> Iterator[Tensor]:
    """The lists of token ids of a file; lines are read as far as they are used, (L,) int64 each, L ≥ 2."""
    any_read = False
    with os_errors(f"{path} cannot be read as token ids", f"{_DO}."):
        for where, ids in _lists(path):
            any_read = True
            yield torch.tensor(_checked(ids, where, vocabulary), dtype=torch.int64)
    if not any_read:
        raise FileError(f"{path} is empty. {_DO}.")


def vocabulary_size(model: nn.Module) -> int | None:
    """How many tokens a model knows; None where its configuration does not say."""
    return configured_vocabulary(getattr(model, "config", None))


def configured_vocabulary(config: Any) -> int | None:
    """How many tokens a model of a configuration knows; None where it does not say."""
    return _first_count(config, "vocabulary_size", "vocab_size")


def configured_context(config: Any) -> int | None:
    """Tokens of the longest context that a configuration names; None where it does not say."""
    return _first_count(config, "max_position_embeddings", "positions")


def _first_count(config: Any, *names: str) -> int | None:
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    found = (getattr(text, name, None) for name in names)
    return next((size for size in found if isinstance(size, int) and size > 0), None)


def _lists(path: Path) -> Iterator[tuple[str, object]]:
    """Items that should be lists of ids, each with its line or index."""
    begun = False
    with require_regular(path).open("rb") as stream:
        for number, line in enumerate(read_lines(stream), 1):
            if line is not None and not line.strip():
                continue
            where = f"{path}, line {number}"
            try:
                values = None if line is None else _parsed(line, where)
            except FileError:
                if begun:
                    raise
                # A list over several lines.
                yield from _split(_parsed(read_limited(path, rows.MOST_LINE), str(path)), where, str(path))
                return
            begun = True
            yield from _split(values, where, where)


def _parsed(content: bytes, where: str) -> object:
    """The values of one JSON document."""
    try:
        return parse_json(content.decode("utf-8-sig"))
    except ValueError as error:
        reason = " ".join(str(error).split())[:200]
        raise FileError(f"{where} must be JSON, got what is none ({reason}). {_DO}.") from error


def _split(values: object, line: str, where: str) -> Iterator[tuple[str, object]]:
    """One list of ids, or the lists of a list."""
    if not isinstance(values, list):
        raise FileError(f"{line} must be a list of token ids, got {_shown(values)}. {_DO}.")
    items = cast("list[object]", values)
    if items and all(isinstance(item, list) for item in items):
        yield from ((f"{where}, list {number}", item) for number, item in enumerate(items, 1))
    else:
        yield line, items


def _checked(ids: object, where: str, vocabulary: int | None) -> list[int]:
    """A list of ids, or an error that names the first item that is none."""
    items = list(cast("Iterable[object]", ids))
    most = 2**63 if vocabulary is None else vocabulary
    for index, item in enumerate(items):
        if type(item) is not int or not 0 <= item < most:
            allowed = "from 0 on" if vocabulary is None else f"from 0 to {vocabulary - 1}"
            raise FileError(
                f"{where}, index {index} must be a token id {allowed}, got {_shown(item)}. Make the ids with the "
                "tokenizer that the model was trained with."
            )
    if len(items) < 2:
        raise FileError(f"{where} must hold at least 2 token ids, got {len(items)}. Leave the list out, or give more.")
    return cast("list[int]", items)


def _shown(value: object) -> str:
    """A value as an error shows it."""
    kind = type(value).__name__
    return f"a {kind}" if kind in {"list", "dict"} else json.dumps(value)[:40]
