"""Documents of a file, whatever its kind: text, JSONL or Parquet."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from statesize.errors import FileError
from statesize.texts.jsonl import read_jsonl
from statesize.texts.parquet import read_parquet
from statesize.texts.plain import read_documents, read_whole
from statesize.texts.rows import Document, Note

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
