"""Documents out of text files, JSONL files, Parquet files and data sets."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

from statesize.errors import FileError
from statesize.tasks.corpus import read_documents, read_whole
from statesize.texts.parquet import read_parquet
from statesize.texts.rows import MESSAGES, Document, line_document, read_lines, row_document

Note = Callable[[str], None]


def file_documents(path: Path, *, special_tokens: bool = False) -> Iterator[tuple[Document, ...]]:
    """The sequences of a file as documents: all of a text file together, those of JSONL and Parquet one by one."""
    if path.suffix not in READERS:
        yield (read_whole(path),) if special_tokens else read_documents(path)
        return

    def refuse(problem: str) -> None:
        raise FileError(f"{problem}. Mend it, or leave it out.")

    for document in READERS[path.suffix](path, "text", refuse):
        yield (document,)


def read_jsonl(path: Path, field: str, on_bad_line: Note) -> Iterator[Document]:
    """The documents of a file of JSON objects, one a line; the file is read as far as they are asked for."""
    found, number = False, 0
    try:
        with path.open("rb") as stream:
            for number, line in enumerate(read_lines(stream), 1):
                if line is not None and not line.strip():
                    continue
                place = f"{path}, line {number}"
                document, problem = line_document(line, field, place)
                if document is None:
                    on_bad_line(f"{place}: {problem}")
                else:
                    found = True
                    yield document
    except OSError as error:
        raise FileError(f"{path}: cannot be read as a JSONL file: {error.strerror or error}") from error
    if not number:
        raise FileError(f"{path} is empty. Give a file with a JSON object on each line.")
    if not found:
        raise FileError(f'{path}: no line is a JSON object with text in a field "{field}"; name the right field.')


READERS = {".jsonl": read_jsonl, ".parquet": read_parquet}
"""What reads a file of many sequences, by the suffix of its name; other files are text."""


def read_dataset(name: str, field: str, split: str, on_bad_line: Note) -> Iterator[Document]:
    """The documents of a data set of the package `datasets`."""
    rows = cast("Iterator[dict[str, object]]", iter(open_dataset(name, field, split)))
    for number, row in enumerate(rows):
        place = f"{name}, row {number}"
        document, problem = row_document(row, field, place)
        if document is None:
            on_bad_line(f"{place}: {problem}")
        else:
            yield document


def open_dataset(name: str, field: str, split: str) -> Any:
    """The rows of a data set, before any is read."""
    try:
        import datasets  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise FileError(
            "The package datasets is needed for data sets and is not installed: pip install 'statesize[datasets]'."
        ) from error
    library = cast("Any", datasets)
    folder = Path(name)
    saved = (folder / "state.json").is_file() or (folder / "dataset_dict.json").is_file()
    try:
        data = library.load_from_disk(name) if saved else library.load_dataset(name, split=split, streaming=True)
        rows = cast("Any", data[split] if isinstance(data, dict) else data)
        columns = cast("list[str] | None", rows.column_names)
    except Exception as error:  # the hub, arrow and the readers of many formats have no error in common
        reason = " ".join(str(error).split())[:200]
        raise FileError(f'There is no data set {name!r} with a part "{split}" that can be read: {reason}') from error
    if columns is not None and field not in columns and MESSAGES not in columns:
        raise FileError(f'{name} has no column "{field}"; its columns are {", ".join(columns)}.')
    return rows
