"""Documents out of files: plain text, JSONL, JSON or Parquet; and token ids, for models without a tokenizer."""

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
from statesize.io.files import os_errors, require_regular
from statesize.texts import rows
from statesize.texts.rows import Document, Note, Row, line_row, read_documents, read_whole, readable, values_row

# Rows of a Parquet file that are in memory at once.
_BATCH = 64


def _lines(path: Path, what: str) -> Iterator[tuple[int, bytes]]:
    """The lines of a file that are not blank, with their numbers."""
    with os_errors(f"{path} cannot be read as {what}"), require_regular(path).open("rb") as stream:
        yield from ((number, line) for number, line in enumerate(stream, 1) if line.strip())


def jsonl(path: Path, field: str, note: Note) -> Iterator[Document]:
    """The documents of a file of JSON objects, one per line; it is read as far as these are used."""
    read = (line_row(line, field, f"{path}, line {number}") for number, line in _lines(path, "a JSONL file"))
    return readable(read, note, f'{path} must have lines with text in a field "{field}", got none. Give --field NAME.')


def _json_list(path: Path, field: str, note: Note) -> Iterator[Document]:
    """The documents of a JSON list of texts, of objects or of chats; the messages of one chat are one document."""
    values = _parsed(read_whole(path), str(path))
    items = cast("list[Any]", values) if isinstance(values, list) else []
    if items and all(isinstance(item, dict) and "role" in item for item in items):
        items = [items]
    read: Iterable[Row] = (
        values_row(item if isinstance(item, dict) else {field: item}, field, f"{path}, item {number}")
        for number, item in enumerate(items, 1)
    )
    return readable(read, note, f'{path} must be a list of texts, of chats, or of objects with a field "{field}".')


def _parsed(content: bytes | str, where: str) -> object:
    """The values of a JSON document."""
    try:
        return json.loads(content.decode("utf-8-sig") if isinstance(content, bytes) else content)
    except ValueError as error:
        raise FileError(f"{where} must be JSON, got none ({' '.join(str(error).split())[:200]}).") from error


def parquet(path: Path, field: str, note: Note) -> Iterator[Document]:
    """The documents of a Parquet file, or of the files of a folder; rows are read as far as these are used."""
    paths = sorted(path.rglob("*.parquet")) if path.is_dir() else [path]
    wanted = f'{path} must have text in the column "{field}", got no row with one. Give --field NAME.'
    return readable((row for file in paths for row in _parquet_rows(file, field)), note, wanted)


def _parquet_rows(path: Path, field: str) -> Iterator[Row]:
    import pyarrow
    import pyarrow.parquet

    broken = cast("type[Exception]", pyarrow.ArrowException)
    with os_errors(f"{path}: cannot be read as a Parquet file", "", broken):
        file = cast("Any", pyarrow.parquet.ParquetFile(path))
        columns = cast("list[str]", file.schema_arrow.names)
        if field not in columns and rows.MESSAGES not in columns:
            raise FileError(f'{path} must have a column "{field}", got {", ".join(columns)}. Give --field NAME.')
        column, number = field if field in columns else rows.MESSAGES, 0
        for batch in file.iter_batches(_BATCH, columns=[column]):
            for cell in batch.column(0):
                number += 1
                where = f"{path}, row {number}"
                try:
                    yield values_row({column: cell.as_py()}, field, where)
                except UnicodeDecodeError:
                    yield where, None, f'"{column}" is not UTF-8'


SOURCES = {".jsonl": jsonl, ".ndjson": jsonl, ".json": _json_list, ".parquet": parquet}
"""Readers of files of many sequences, by the suffix of their names; other files are text."""


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


def file_documents(path: Path, *, field: str | None = None) -> Iterator[tuple[Document, ...]]:
    """The sequences of a file: a text file as one document, each row as one."""
    if is_rows(path):
        # The option --field says the field of a command.
        note = partial(_refuse, advice="Give --field NAME, or mend the row.") if field else _refuse
        yield from ((document,) for document in read_file(path, field or "text", note))
    else:
        documents = read_documents(path)
        yield documents if len(documents) == 1 else (read_whole(path).strip("\n"),)


def listed(name: str, documents: Iterable[str]) -> list[str]:
    """Documents as a list."""
    if isinstance(documents, str):
        raise InputError(f"{name} must be a sequence of documents, got one string. For one document, give [text].")
    require_kind(name, documents, Iterable, "a sequence of strings")
    items = list(documents) if getattr(documents, "ndim", 1) else [documents]
    for document in items:
        try:
            cast("Any", document).encode()
        except (AttributeError, UnicodeEncodeError) as error:
            raise InputError(f"{name} must be a sequence of Unicode strings, got {document!r:.40}.") from error
    return cast("list[str]", items)


_DO = "Give a JSON list of token ids, or one such list on each line."


def read_token_ids(path: Path, vocabulary: int | None) -> Iterator[Tensor]:
    """The lists of token ids of a file; lines are read as far as they are used, (L,) int64 each, L ≥ 2."""
    any_read = False
    for where, ids in _lists(path):
        any_read = True
        yield torch.tensor(_checked(ids, where, vocabulary), dtype=torch.int64)
    if not any_read:
        raise FileError(f"{path} must hold token ids, got none. {_DO}")


def _lists(path: Path) -> Iterator[tuple[str, object]]:
    """Items that should be lists of ids, each with its line or index."""
    for index, (number, line) in enumerate(_lines(path, "token ids")):
        where, whole = f"{path}, line {number}", False
        try:
            values = _parsed(line, where)
        except FileError:
            if index:
                raise
            # A list over several lines.
            values, whole = _parsed(path.read_bytes(), str(path)), True
        items = cast("list[object]", values) if isinstance(values, list) else []
        if items and all(isinstance(item, list) for item in items):
            yield from ((f"{where}, list {position}", item) for position, item in enumerate(items, 1))
        else:
            yield where, values
        if whole:
            return


def _checked(ids: object, where: str, vocabulary: int | None) -> list[int]:
    """A list of ids, or an error that names the first item that is none."""
    items = cast("list[Any]", ids) if isinstance(ids, list) else []
    if len(items) < 2:
        raise FileError(f"{where} must be a list of at least 2 token ids, got {_shown(cast('object', ids))}. {_DO}")
    most = 2**63 if vocabulary is None else vocabulary
    for index, item in enumerate(items):
        if type(item) is not int or not 0 <= item < most:
            raise FileError(
                f"{where}, index {index} must be a token id from 0 to {most - 1}, got {_shown(item)}. Make the ids "
                "with the tokenizer that the model was trained with."
            )
    return items


def _shown(value: object) -> str:
    """A value as an error shows it."""
    text = json.dumps(value)
    return text if len(text) <= 40 else f"{text[:40]}…"


def vocabulary_size(model: nn.Module) -> int | None:
    """The number of tokens of a model; None where its configuration does not say."""
    return configured_vocabulary(getattr(model, "config", None))


def configured_vocabulary(config: Any) -> int | None:
    """The number of tokens of a model of a configuration; None where it does not say."""
    return _first_count(config, "vocabulary_size", "vocab_size")


def configured_context(config: Any) -> int | None:
    """Tokens of the longest context that a configuration names; None where it does not say."""
    return _first_count(config, "max_position_embeddings", "positions")


def _first_count(config: Any, *names: str) -> int | None:
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    counts = (getattr(text, name, None) for name in names)
    return next((count for count in counts if isinstance(count, int) and count > 0), None)
