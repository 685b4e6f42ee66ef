"""Some documents from all parts of a corpus, and how many there are in all, without reading the rest."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, cast

import numpy as np

from statesize.errors import FileError
from statesize.texts.documents import open_dataset, read_jsonl
from statesize.texts.parquet import cell_document, document_column, parquet_errors, parquet_files
from statesize.texts.rows import Document, line_document, read_lines, row_document

Note = Callable[[str], None]

# Bytes up to which a file or a column of a row group is read whole.
_SMALL = 2**20


@dataclass(frozen=True)
class Extract:
    """Some of the documents of a corpus."""

    texts: tuple[Document, ...]  # from all parts of the corpus where these can be reached
    total: int | None  # number of texts in the corpus, counted or estimated; None where it is not known


def jsonl_extract(path: Path, field: str, most: int, on_bad_line: Note) -> Extract:
    """Lines from all parts of a JSONL file; the number of lines follows from their mean length."""
    # The line after a place in each of `most` equal stretches of the file is taken, so that long lines are not drawn
    # more often than short ones, unless the file is sorted by length. A file of fewer lines than that is read as a
    # whole.
    try:
        size = path.stat().st_size
        if size <= _SMALL:
            return spread(list(read_jsonl(path, field, on_bad_line)), most)
        lines, texts, looked = 0, list[Document](), 0
        with path.open("rb") as stream:
            for offset in _places(size, most):
                stream.seek(max(offset, stream.tell()))
                next(read_lines(stream), None)
                start = stream.tell()
                line = next(read_lines(stream), b"")
                looked += stream.tell() - start
                if line is not None and not line.strip():
                    continue
                lines += 1
                place = f"{path}, line at byte {start}"
                text, problem = line_document(line, field, place)
                if text is None:
                    on_bad_line(f"{place}: {problem}")
                else:
                    texts.append(text)
    except OSError as error:
        raise FileError(f"{path}: cannot be read as a JSONL file: {error.strerror or error}") from error
    if lines <= most // 2:
        return spread(list(read_jsonl(path, field, on_bad_line)), most)
    if not texts:
        raise FileError(
            f'{path}: none of {lines} lines from all parts of it is a JSON object with text in a field "{field}"; name '
            "the right field."
        )
    return Extract(tuple(texts), round(size / looked * len(texts)))


def parquet_extract(path: Path, field: str, most: int, on_bad_row: Note) -> Extract:
    """Rows from all row groups of Parquet files, or from evenly chosen ones where there are more than are asked for."""
    files = parquet_files(path, field)
    groups = [(place, file, index) for place, file in files for index in range(file.num_row_groups)]
    chosen = evenly(groups, most)
    texts, looked = list[Document](), 0
    for order, (place, file, index) in enumerate(chosen):
        share = most * (order + 1) // len(chosen) - most * order // len(chosen)
        with parquet_errors(place):
            column = document_column(file, field)
            for number, value in _rows(file, index, column, share):
                looked += 1
                row = f"{place}, row {number + 1} of row group {index + 1}"
                text, problem = cell_document(value, column, field, row)
                if text is None:
                    on_bad_row(f"{row}: {problem}")
                else:
                    texts.append(text)
    if not texts:
        raise FileError(f'{path}: none of {looked} rows has text in the column "{field}"; name the right column.')
    rows = sum(int(file.metadata.num_rows) for _, file in files)
    return Extract(tuple(texts), round(rows * len(texts) / looked))


def dataset_extract(name: str, field: str, split: str, most: int, on_bad_row: Note) -> Extract:
    """Rows of a data set: evenly spread where it lies on disk as `save_to_disk` wrote it, else its first ones."""
    rows = open_dataset(name, field, split)
    size = len(rows) if hasattr(rows, "__len__") else None
    numbers = list(range(most + 1)) if size is None else evenly(range(size), most)
    found: list[dict[str, object]] = (
        list(islice(iter(rows), most + 1)) if size is None else [rows[number] for number in numbers]
    )
    if size is None and len(found) <= most:
        size = len(found)
    elif size is None:
        found.pop()
        parts = cast("dict[str, Any]", rows.info.splits or {})
        size = parts[split].num_examples or None if split in parts else None
    texts: list[Document] = []
    for number, row in zip(numbers, found, strict=False):
        place = f"{name}, row {number}"
        text, problem = row_document(row, field, place)
        if text is None:
            on_bad_row(f"{place}: {problem}")
        else:
            texts.append(text)
    if not texts:
        raise FileError(f'{name}: none of {len(found)} rows has text in the column "{field}"; name the right column.')
    return Extract(tuple(texts), None if size is None else round(size * len(texts) / len(found)))


def spread(texts: Sequence[Document], most: int) -> Extract:
    """At most so many of some documents, evenly spread."""
    return Extract(tuple(evenly(texts, most)), len(texts))


def evenly(items: Sequence[Any], most: int) -> list[Any]:
    """At most so many of some items, evenly spread; the first is among them."""
    count = min(most, len(items))
    return [items[len(items) * index // count] for index in range(count)]


def _places(size: int, most: int) -> list[int]:
    # Not evenly spaced, because lines may be of alternating kinds.
    shares = np.random.default_rng(0).random(most)
    return [int(size * (index + float(share)) / most) for index, share in enumerate(shares)]


def _rows(file: Any, group: int, field: str, most: int) -> list[tuple[int, Any]]:
    """Some cells of a row group with their places in it."""
    facts = file.metadata.row_group(group)
    columns = [facts.column(index) for index in range(facts.num_columns)]
    # A list of messages is stored as several columns.
    size = sum(
        column.total_uncompressed_size
        for column in columns
        if column.path_in_schema == field or column.path_in_schema.startswith(f"{field}.")
    )
    if size <= _SMALL:
        values = file.read_row_group(group, columns=[field]).column(0)
        return [(row, values[row]) for row in evenly(range(len(values)), most)]
    found: list[tuple[int, Any]] = []
    for batch in file.iter_batches(most, row_groups=[group], columns=[field]):
        found += enumerate(batch.column(0), len(found))
        if len(found) >= most:
            break
    return found[:most]
