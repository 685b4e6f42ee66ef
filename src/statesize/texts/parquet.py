"""Documents out of a column of Parquet files."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from statesize.errors import FileError
from statesize.texts.rows import MESSAGES, Document, row_document
from statesize.untrusted import GROWTH, SPARE

# Rows that are in memory at once.
_BATCH = 64


@contextmanager
def parquet_errors(path: Path) -> Generator[None]:
    """Errors of reading a file as those of statesize."""
    import pyarrow

    try:
        yield
    except (OSError, cast("type[Exception]", pyarrow.ArrowException)) as error:
        reason = " ".join(str(error).split())[:200]
        raise FileError(f"{path}: cannot be read as a Parquet file: {reason}") from error


def parquet_files(path: Path, field: str) -> list[tuple[Path, Any]]:
    """The files of a corpus, opened; none of their rows is read."""
    import pyarrow.parquet

    found = sorted(path.rglob("*.parquet")) if path.is_dir() else [path]
    if not found:
        raise FileError(f"{path} is a folder without a file whose name ends in .parquet.")
    files: list[tuple[Path, Any]] = []
    for place in found:
        with parquet_errors(place):
            _check_content(place, place.stat().st_size)
            file = cast("Any", pyarrow.parquet.ParquetFile(place))
        columns = cast("list[str]", file.schema_arrow.names)
        _check_sizes(place, file.metadata)
        if field not in columns and MESSAGES not in columns:
            raise FileError(f'{place} has no column "{field}"; its columns are {", ".join(columns)}.')
        files.append((place, file))
    _check_content(path, sum(int(file.metadata.num_rows) for _, file in files))
    return files


def document_column(file: Any, field: str) -> str:
    """The column that holds the documents of a file: `field`, or "messages" where there is no such column."""
    return field if field in cast("list[str]", file.schema_arrow.names) else MESSAGES


def _check_content(path: Path, size: int) -> None:
    """Refuses what has no bytes or no rows."""
    if not size:
        raise FileError(f"{path} is empty. Give Parquet with a text in each row.")


def _check_sizes(path: Path, metadata: Any) -> None:
    """Refuses a file that would unpack to far more than it is, before any of it is read."""
    most = SPARE + GROWTH * path.stat().st_size
    unpacked = sum(int(metadata.row_group(group).total_byte_size) for group in range(metadata.num_row_groups))
    if max(unpacked, int(metadata.num_rows)) > most:
        raise FileError(
            f"{path} takes {path.stat().st_size:,} bytes and says that it holds {metadata.num_rows:,} rows of "
            f"{unpacked:,} bytes; refusing what is more than {GROWTH} times as much."
        )


def read_parquet(path: Path, field: str, on_bad_row: Callable[[str], None]) -> Iterator[Document]:
    """The documents of a column, file after file; rows are read as far as they are asked for."""
    found = False
    for place, file in parquet_files(path, field):
        number, left = 0, SPARE + GROWTH * place.stat().st_size
        with parquet_errors(place):
            column = document_column(file, field)
            for batch in file.iter_batches(_BATCH, columns=[column]):
                for value in batch.column(0):
                    number += 1
                    row = f"{place}, row {number}"
                    document, problem = cell_document(value, column, field, row)
                    if document is None:
                        on_bad_row(f"{row}: {problem}")
                    else:
                        found = True
                        # One entry of a dictionary may stand in any number of rows.
                        left -= len(document if isinstance(document, str) else str(document.messages))
                        if left < 0:
                            raise FileError(f"{place} holds more than {GROWTH} times as much text as it takes bytes.")
                        yield document
    if not found:
        raise FileError(f'{path}: no row has text in the column "{field}"; name the right column.')


def cell_document(value: Any, column: str, field: str, place: str) -> tuple[Document | None, str]:
    """The document of a cell, or None and what is wrong with the cell."""
    try:
        cell: object = value.as_py()
    except UnicodeDecodeError:
        return None, f'"{column}" is not UTF-8'
    return row_document({column: cell}, field, place)
