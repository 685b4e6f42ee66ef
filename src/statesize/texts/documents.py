"""Documents and token ids out of files: the suffix of a name chooses the reader."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias, cast

import torch
from torch import Tensor

from statesize.errors import FileError
from statesize.io.files import os_errors, require_regular
from statesize.texts.rows import MESSAGES, Document, row_document

IDS = ".json"
"""Suffix of files of token ids."""

_BLANK_LINES = re.compile(r"\n(?:[^\S\n]*\n)+")
# Rows of a Parquet file that are in memory at once.
_BATCH = 64
# The place of each row, and what parses it, which raises a ValueError.
_Rows: TypeAlias = Iterator[tuple[str, Callable[[], Any]]]


def read_file(
    path: Path, field: str = "text", note: Callable[[str], None] | None = None, *, whole: bool = False
) -> Iterator[Document]:
    """The documents of a file: each row of .jsonl and .parquet, which are read as far as these are used.

    Args:
        path: The file, or a folder of .parquet; other suffixes are of text, whose documents blank lines part.
        field: Holds the text or the chat of a row; without it, "messages" is read.
        note: Takes the place and fault of each row without a document, which otherwise is an error.
        whole: Whether a file of text is one document.

    Yields:
        The documents.

    Raises:
        FileError: It cannot be read, or holds no document.
    """
    suffix = ".parquet" if path.is_dir() else path.suffix.lower()
    if suffix == IDS:
        raise FileError(f"{path} must hold text, got token ids by its name. Give .jsonl, .parquet or a text file.")
    read = _READERS.get(suffix, partial(_text, whole=whole))
    any_read = False
    for file in sorted(path.rglob("*.parquet")) if path.is_dir() else [path]:
        with os_errors(f"{file} cannot be read", "", ValueError):
            for where, parse in read(require_regular(file), field):
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
        raise FileError(f'{path} must hold text, rows in the field "{field}" (--field NAME), got none.')


def _text(path: Path, _field: str, whole: bool) -> _Rows:
    text = path.read_text(encoding="utf-8-sig")
    for part in [text] if whole else _BLANK_LINES.split(text):
        if part.strip():
            yield str(path), partial(part.strip, "\n")


def _jsonl(path: Path, _field: str) -> _Rows:
    with path.open("rb") as stream:
        for number, line in enumerate(stream, 1):
            if line.strip():
                yield f"{path}, line {number}", partial(json.loads, line)


def _parquet(path: Path, field: str) -> _Rows:
    import pyarrow.parquet

    table: Any = pyarrow.parquet.ParquetFile(path)
    columns: list[str] = table.schema_arrow.names
    column = field if field in columns or MESSAGES not in columns else MESSAGES
    if column not in columns:
        raise FileError(f'{path} must have a column "{field}", got {", ".join(columns)}. Give --field NAME.')
    cells = (cell for batch in table.iter_batches(_BATCH, columns=[column]) for cell in batch.column(0))
    for number, cell in enumerate(cells, 1):
        yield f"{path}, row {number}", cell.as_py


_READERS: dict[str, Callable[[Path, str], _Rows]] = {".jsonl": _jsonl, ".ndjson": _jsonl, ".parquet": _parquet}


def read_token_ids(path: Path, vocabulary: int | None) -> Iterator[Tensor]:
    """The token ids of a file of JSON, a list or a list of lists, (L,) int64 each, below `vocabulary`."""
    with os_errors(f"{path} must be JSON", "", ValueError):
        values = json.loads(require_regular(path).read_bytes())
    most = 2**63 if vocabulary is None else vocabulary
    rows = cast("list[Any]", values) if isinstance(values, list) else []
    for number, ids in enumerate(rows if rows and isinstance(rows[0], list) else [values], 1):
        items = cast("list[Any]", ids) if isinstance(ids, list) else []
        wrong = [item for item in items if type(item) is not int or not 0 <= item < most]
        if wrong or len(items) < 2:
            wanted = f"{path}, list {number} must be 2 or more token ids from 0 to {most - 1}"
            raise FileError(f"{wanted}, got {wrong[0] if wrong else ids!s:.40}. Make them with the model's tokenizer.")
        yield torch.tensor(items, dtype=torch.int64)


def vocabulary_size(model: Any) -> int | None:
    """The number of tokens of a model, or of its configuration; None where that does not say."""
    return _first_count(model, "vocabulary_size", "vocab_size")


def context_length(model: Any) -> int | None:
    """Tokens of the longest context that a model's configuration names; None where it does not say."""
    return _first_count(model, "max_position_embeddings", "positions")


def _first_count(model: Any, *names: str) -> int | None:
    config = getattr(model, "config", model)
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    counts = (getattr(text, name, None) for name in names)
    return next((count for count in counts if isinstance(count, int) and count > 0), None)
