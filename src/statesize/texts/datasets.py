"""Documents of a data set of the package `datasets`, on disk or of the hub, row by row, or some of them."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, cast

from statesize.errors import FileError
from statesize.texts.rows import MESSAGES, Document, Extract, Note, evenly, kept, values_row


def read_dataset(name: str, field: str, split: str, note: Note) -> Iterator[Document]:
    """The documents of a data set; one of the hub is read as far as documents are asked for."""
    data = enumerate(open_dataset(name, field, split))
    rows = (values_row(row, field, f"{name}, row {number}") for number, row in data)
    return kept(rows, note, f'{name}: no row has text in the column "{field}"; name the right column.')


def dataset_extract(name: str, field: str, split: str, most: int, note: Note) -> Extract:
    """At most so many documents: evenly spread where `save_to_disk` wrote the data set, else its first ones."""
    data = open_dataset(name, field, split)
    if hasattr(data, "__len__"):
        size = len(data)
        rows = [values_row(data[number], field, f"{name}, row {number}") for number in evenly(range(size), most)]
    else:
        begun = cast("Iterator[dict[str, object]]", islice(data, most + 1))
        first = [values_row(row, field, f"{name}, row {number}") for number, row in enumerate(begun)]
        size, rows = len(first), first[:most]
        if size > most:
            parts = cast("dict[str, Any]", data.info.splits or {})
            size = parts[split].num_examples or None if split in parts else None
    problem = f'{name}: none of {len(rows)} rows has text in the column "{field}"; name the right column.'
    texts = tuple(kept(rows, note, problem))
    return Extract(texts, None if size is None else round(size * len(texts) / len(rows)))


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
