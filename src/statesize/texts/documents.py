"""Documents out of files: plain text, JSONL or Parquet."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import cast

import numpy as np

from statesize.check import require_kind
from statesize.errors import FileError, InputError
from statesize.io.files import require_regular
from statesize.texts.rows import (
    Document,
    Extract,
    Note,
    Row,
    evenly,
    line_row,
    read_documents,
    read_lines,
    read_whole,
    readable,
    reading,
)
from statesize.texts.tables import read_parquet

_SMALL = 2**20


def read_jsonl(path: Path, field: str, note: Note) -> Iterator[Document]:
    """The documents of a file of JSON objects, one a line; lines are read as far as documents are used."""
    problem = f'{path}: no line is a JSON object with text in a field "{field}"; name the right field.'
    return readable(_rows(path, field), note, problem)


def jsonl_extract(path: Path, field: str, most: int, note: Note) -> Extract:
    """At most so many documents, from all parts of a file; their number follows from the mean length of lines."""
    with reading(path, "JSONL"):
        size = require_regular(path).stat().st_size
        rows, looked = _some_rows(path, field, size, most) if size > _SMALL else ([], 0)
    # A file of few lines is read as a whole.
    if len(rows) <= most // 2:
        texts = list(read_jsonl(path, field, note))
        return Extract(tuple(evenly(texts, most)), len(texts))
    problem = (
        f'{path}: none of {len(rows)} lines from all parts of it is a JSON object with text in a field "{field}"; name '
        "the right field."
    )
    texts = list(readable(rows, note, problem))
    return Extract(tuple(texts), round(size / looked * len(texts)))


def _rows(path: Path, field: str) -> Iterator[Row]:
    number = 0
    with reading(path, "JSONL"), require_regular(path).open("rb") as stream:
        for number, line in enumerate(read_lines(stream), 1):
            if line is None or line.strip():
                yield line_row(line, field, f"{path}, line {number}")
    if not number:
        raise FileError(f"{path} is empty. Give a file with a JSON object on each line.")


def _some_rows(path: Path, field: str, size: int, most: int) -> tuple[list[Row], int]:
    """The line after an offset in each of `most` equal stretches of a file, and how many bytes were looked at."""
    # Long lines are so drawn no more often than short ones, unless the file is sorted by length. The offsets are not
    # evenly spaced, because lines may be of alternating kinds.
    rows, looked = list[Row](), 0
    with path.open("rb") as stream:
        for index, share in enumerate(np.random.default_rng(0).random(most)):
            stream.seek(max(int(size * (index + float(share)) / most), stream.tell()))
            next(read_lines(stream), None)
            start = stream.tell()
            line = next(read_lines(stream), b"")
            looked += stream.tell() - start
            if line is None or line.strip():
                rows.append(line_row(line, field, f"{path}, line at byte {start}"))
    return rows, looked


READERS = {".jsonl": read_jsonl, ".parquet": read_parquet}
"""What reads a file of many sequences, by the suffix of its name; other files are text."""


def _refuse(problem: str) -> None:
    raise FileError(f"{problem}. Mend it, or leave it out.")


def read_file(
    path: Path, field: str = "text", note: Note = _refuse, *, special_tokens: bool = False
) -> Iterator[Document]:
    """The documents of a file; blank lines part those of text, unless special tokens of the text do."""
    if path.suffix in READERS:
        return READERS[path.suffix](path, field, note)
    return iter((read_whole(path),) if special_tokens else read_documents(path))


def file_documents(path: Path, *, special_tokens: bool = False) -> Iterator[tuple[Document, ...]]:
    """The sequences of a file as documents: all of a text file together, those of JSONL and Parquet one by one."""
    documents = read_file(path, special_tokens=special_tokens)
    yield from ((document,) for document in documents) if path.suffix in READERS else (tuple(documents),)


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
