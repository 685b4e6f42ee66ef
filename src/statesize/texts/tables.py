"""Documents out of Parquet files and data sets."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, cast

from statesize.errors import FileError
from statesize.io.files import GROWTH, SPARE, os_errors, require_regular
from statesize.texts.rows import MESSAGES, Document, Note, Row, readable, values_row

# Rows that are in memory at once.
_BATCH = 64


def parquet(path: Path, field: str, note: Note) -> Iterator[Document]:
    """The documents of a Parquet file, or of the files of a folder; rows are read as far as these are used."""
    return readable(_rows(path, field), note, _none_read(path, field))


def _none_read(name: object, field: str) -> str:
    return f'{name}: no row has text in the column "{field}". Give --field NAME.'


def parquet_files(path: Path, field: str) -> list[tuple[Path, Any]]:
    """A Parquet file, or those of a folder by name, as `pyarrow.parquet.ParquetFile`; no row of them is read."""
    import pyarrow.parquet

    paths = sorted(path.rglob("*.parquet")) if path.is_dir() else [path]
    if not paths:
        raise FileError(f"{path} is a folder without a file whose name ends in .parquet.")
    files: list[tuple[Path, Any]] = []
    for where in paths:
        with _reading(where):
            _check_content(where, require_regular(where).stat().st_size)
            file = cast("Any", pyarrow.parquet.ParquetFile(where))
        columns = cast("list[str]", file.schema_arrow.names)
        _check_sizes(where, file.metadata)
        if field not in columns and MESSAGES not in columns:
            raise FileError(f'{where} has no column "{field}"; its columns are {", ".join(columns)}.')
        files.append((where, file))
    _check_content(path, sum(int(file.metadata.num_rows) for _, file in files))
    return files


def _reading(path: Path) -> AbstractContextManager[None]:
    import pyarrow

    arrow = cast("type[Exception]", pyarrow.ArrowException)
    return os_errors(f"{path}: cannot be read as a Parquet file", "", arrow)


def _check_content(path: Path, size: int) -> None:
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


def _rows(path: Path, field: str) -> Iterator[Row]:
    for where, file in parquet_files(path, field):
        number, left = 0, SPARE + GROWTH * where.stat().st_size
        with _reading(where):
            column = field if field in cast("list[str]", file.schema_arrow.names) else MESSAGES
            for batch in file.iter_batches(_BATCH, columns=[column]):
                for cell in batch.column(0):
                    number += 1
                    row = _row(cell, column, field, f"{where}, row {number}")
                    # One entry of a dictionary may stand in any number of rows.
                    if row[1] is not None:
                        left -= len(row[1] if isinstance(row[1], str) else str(row[1].messages))
                    if left < 0:
                        raise FileError(f"{where} holds more than {GROWTH} times as much text as it takes bytes.")
                    yield row


def _row(cell: Any, column: str, field: str, where: str) -> Row:
    try:
        value: object = cell.as_py()
    except UnicodeDecodeError:
        return where, None, f'"{column}" is not UTF-8'
    return values_row({column: value}, field, where)


def dataset(name: str, field: str, split: str, note: Note) -> Iterator[Document]:
    """The documents of a data set; one of the hub is read as far as these are used."""

    def rows() -> Iterator[Row]:
        for number, row in enumerate(open_dataset(name, field, split)):
            yield values_row(row, field, f"{name}, row {number}")

    return readable(rows(), note, _none_read(name, field))


def import_datasets() -> Any:
    """The package, or a FileError where it is not installed."""
    try:
        import datasets  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise FileError(
            "The package datasets is needed for data sets and is not installed: pip install datasets."
        ) from error
    return cast("Any", datasets)


def open_dataset(name: str, field: str, split: str) -> Any:
    """The rows of a data set, before any is read."""
    library = import_datasets()
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
