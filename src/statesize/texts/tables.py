"""Documents out of Parquet files and data sets."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

from statesize.errors import FileError
from statesize.io.files import GROWTH, SPARE, os_errors, require_regular
from statesize.texts.rows import MESSAGES, Document, Note, Row, readable, values_row

# Rows that are in memory at once.
_BATCH = 64


def parquet(path: Path, field: str, note: Note) -> Iterator[Document]:
    """The documents of a Parquet file, or of the files of a folder; rows are read as far as these are used."""
    paths = sorted(path.rglob("*.parquet")) if path.is_dir() else [path]
    return readable((row for file in paths for row in _rows(file, field)), note, _none_read(path, field))


def _none_read(name: object, field: str) -> str:
    return f'{name} must have text in the column "{field}", got no row with one. Give --field NAME.'


def _column(name: object, columns: list[str], field: str) -> str:
    """The column that is read, of those that there are."""
    if field in columns or MESSAGES in columns:
        return field if field in columns else MESSAGES
    raise FileError(f'{name} must have a column "{field}", got {", ".join(columns)}. Give --field NAME.')


def _rows(path: Path, field: str) -> Iterator[Row]:
    import pyarrow
    import pyarrow.parquet

    broken = cast("type[Exception]", pyarrow.ArrowException)
    with os_errors(f"{path}: cannot be read as a Parquet file", "", broken):
        size = require_regular(path).stat().st_size
        left, file = SPARE + GROWTH * size, cast("Any", pyarrow.parquet.ParquetFile(path))
        metadata = file.metadata
        unpacked = sum(int(metadata.row_group(group).total_byte_size) for group in range(metadata.num_row_groups))
        if max(unpacked, int(metadata.num_rows)) > left:
            raise FileError(f"{path} must unpack to at most {GROWTH} times its {size:,} bytes, got {unpacked:,}.")
        column, number = _column(path, cast("list[str]", file.schema_arrow.names), field), 0
        for batch in file.iter_batches(_BATCH, columns=[column]):
            for cell in batch.column(0):
                number += 1
                where = f"{path}, row {number}"
                try:
                    row = values_row({column: cell.as_py()}, field, where)
                except UnicodeDecodeError:
                    row = where, None, f'"{column}" is not UTF-8'
                # An entry of a dictionary may stand in any number of rows.
                left -= len(row[1] if isinstance(row[1], str) else str(row[1]))
                if left < 0:
                    raise FileError(
                        f"{path} must hold at most {GROWTH} times as much text as it takes bytes, got more."
                    )
                yield row


def dataset(name: str, field: str, split: str, note: Note) -> Iterator[Document]:
    """The documents of a data set; one of the hub is read as far as these are used."""

    def rows() -> Iterator[Row]:
        for number, row in enumerate(_open_dataset(name, field, split)):
            yield values_row(row, field, f"{name}, row {number}")

    return readable(rows(), note, _none_read(name, field))


def _open_dataset(name: str, field: str, split: str) -> Any:
    """The rows of a data set, before any is read."""
    try:
        import datasets  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise FileError("Data sets need the package datasets, which is not installed: pip install datasets.") from error
    library, folder = cast("Any", datasets), Path(name)
    saved = (folder / "state.json").is_file() or (folder / "dataset_dict.json").is_file()
    try:
        data = library.load_from_disk(name) if saved else library.load_dataset(name, split=split, streaming=True)
        rows = cast("Any", data[split] if isinstance(data, dict) else data)
        columns = cast("list[str] | None", rows.column_names)
    except Exception as error:  # the hub, arrow and the readers of many formats have no error in common
        reason = " ".join(str(error).split())[:200]
        raise FileError(f'There is no data set {name!r} with a part "{split}" that can be read: {reason}') from error
    if columns is not None:
        _column(name, columns, field)
    return rows
