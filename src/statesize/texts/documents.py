"""Documents and token ids out of files: the suffix of a name chooses the reader."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias, cast

import torch
from torch import Tensor, nn

from statesize.errors import FileError
from statesize.io.files import os_errors, require_regular
from statesize.texts.rows import MESSAGES, Document, read_documents, read_whole, row_document

_Rows: TypeAlias = Iterator[tuple[str, Callable[[], Any]]]
"""The place of each row, and what parses it, which raises a ValueError."""
# Rows of a Parquet file that are in memory at once.
_BATCH = 64


def _jsonl(path: Path) -> _Rows:
    with require_regular(path).open("rb") as stream:
        for number, line in enumerate(stream, 1):
            if line.strip():
                yield f"{path}, line {number}", partial(json.loads, line)


def _parquet(path: Path, field: str) -> _Rows:
    import pyarrow
    import pyarrow.parquet

    broken = cast("type[Exception]", pyarrow.ArrowException)
    for file in sorted(path.rglob("*.parquet")) if path.is_dir() else [path]:
        with os_errors(f"{file} cannot be read as a Parquet file", "", broken):
            table, number = cast("Any", pyarrow.parquet.ParquetFile(file)), 0
            columns = cast("list[str]", table.schema_arrow.names)
            column = field if field in columns or MESSAGES not in columns else MESSAGES
            if column not in columns:
                raise FileError(f'{file} must have a column "{field}", got {", ".join(columns)}. Give --field NAME.')
            for batch in table.iter_batches(_BATCH, columns=[column]):
                for cell in batch.column(0):
                    number += 1
                    yield f"{file}, row {number}", cell.as_py


IDS = ".json"
"""Suffix of files of token ids."""


def is_rows(path: Path) -> bool:
    """Whether a file holds many sequences, by its name; a folder does, of Parquet files."""
    return path.suffix.lower() in (".jsonl", ".ndjson", ".parquet") or path.is_dir()


def read_file(
    path: Path, field: str = "text", note: Callable[[str], None] | None = None, *, whole: bool = False
) -> Iterator[Document]:
    """The documents of a file: each row of .jsonl and .parquet, which are read as far as these are used.

    Args:
        path: The file; other suffixes are of text, whose documents are parted by blank lines.
        field: Holds the text or the chat of a row; without it, "messages" is read.
        note: Takes the place and fault of each row without a document, which otherwise is an error.
        whole: Whether a file of text is one document.

    Yields:
        The documents.

    Raises:
        FileError: It cannot be read, or holds no document.
    """
    if path.suffix.lower() == IDS:
        raise FileError(f"{path} must hold text, got token ids by its name. Give .jsonl, .parquet or a text file.")
    if not is_rows(path):
        yield from (read_whole(path).strip("\n"),) if whole else read_documents(path)
        return
    any_read = False
    with os_errors(f"{path} cannot be read", "", ValueError):
        is_lines = path.suffix.lower() != ".parquet" and not path.is_dir()
        for where, parse in _jsonl(path) if is_lines else _parquet(path, field):
            try:
                document = row_document(parse(), field, where)
            except ValueError as error:
                if note is None:
                    raise FileError(f"{where}: {error}. Mend it, or leave it out.") from error
                note(f"{where}: {error}")
                continue
            any_read = True
            yield document
    if not any_read:
        raise FileError(f'{path} must have rows with text in the field "{field}", got none. Give --field NAME.')


def read_token_ids(path: Path, vocabulary: int | None) -> Iterator[Tensor]:
    """The token ids of a file of JSON, a list or a list of lists, (L,) int64 each, below `vocabulary`."""
    with os_errors(f"{path} must be JSON", "", ValueError):
        values = json.loads(require_regular(path).read_bytes())
    rows = cast("list[Any]", values) if isinstance(values, list) else []
    for number, ids in enumerate(rows if rows and isinstance(rows[0], list) else [values], 1):
        yield _checked_ids(ids, f"{path}, list {number}", 2**63 if vocabulary is None else vocabulary)


def _checked_ids(ids: Any, where: str, vocabulary: int) -> Tensor:
    """A list of token ids."""
    if not isinstance(ids, list) or len(cast("list[Any]", ids)) < 2:
        raise FileError(f"{where} must be a list of at least 2 token ids, got {ids!s:.40}. Give JSON.")
    for index, item in enumerate(cast("list[Any]", ids)):
        if type(item) is not int or not 0 <= item < vocabulary:
            raise FileError(
                f"{where}, index {index} must be a token id from 0 to {vocabulary - 1}, got {item!r:.40}. Make the ids "
                "with the tokenizer that the model was trained with."
            )
    return torch.tensor(ids, dtype=torch.int64)


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
