"""The results of a study on disk: a Parquet file for each finished run, never changed again, and one of all rows."""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import pandas as pd
import pyarrow as pa
import pyarrow.parquet

from statesize.errors import FileError
from statesize.io.files import GROWTH, LOCK, SPARE, Parts, check_writable, parse_json, read_limited, replace_file
from statesize.lab.studies.grid.grid import TrainingRun
from statesize.lab.studies.grid.run import Row

SCHEMA = 1
MARK = "study.json"
_DIGEST = b"statesize_rows_sha256"
MOST_TABLE = 2**30
"""Bytes of a file of rows that is read."""

_BATCH = 256  # rows that are read at once
_RUN = re.compile(r"[0-9a-f]{16}-[0-9a-f]{24}\.parquet|\..*\.part")


@dataclass(frozen=True)
class ResultTable:
    """The folder of one study: study.json, a part a finished run in runs/, and table.parquet once it is complete.

    The rows of a finished run are written at once, so a process that is killed loses only the runs it was working on.
    Runs of a larger grid of the same study are added to the finished ones.
    """

    folder: Path

    @classmethod
    def open(cls, folder: Path, study: str) -> ResultTable:
        """Begins or continues the table of a study; a FileError if the folder holds another study or is read-only."""
        mark = folder / MARK
        if folder.exists() and not folder.is_dir():
            raise FileError(f"output must be a folder, got the file {folder}.")
        check_writable(folder)
        made, content = json.dumps({"schema": SCHEMA, "study": study}).encode() + b"\n", None
        try:
            content = read_limited(mark)
            written, problem = _parsed_mark(content), ""
        except FileNotFoundError:
            written, problem = None, "holds no study"
        except (OSError, ValueError) as error:
            written, problem = None, f"its {MARK} cannot be read ({error})"
        if written is None:
            cut_off = content is not None and made.startswith(content)
            if folder.exists() and not _only_results(folder, {LOCK, MARK} if cut_off else {LOCK}):
                raise FileError(f"{folder} is not empty and {problem}. Give a new folder.")
            replace_file(mark, made)
        elif written.get("study") != study or written.get("schema") != SCHEMA:
            raise FileError(
                f"{folder} holds results of the study {written.get('study')!r}, schema {written.get('schema')!r}, "
                f"and this is {study!r}, schema {SCHEMA}. Give another folder."
            )
        return cls(folder)

    def rows(self, runs: Sequence[TrainingRun]) -> list[Row]:
        """The rows of the runs that are done, in the order of the grid, one a measurement."""
        return [row for run in runs for row in self.parts.read(run.key) or ()]

    def write(self, rows: Sequence[Row], name: str = "table.parquet") -> Path:
        """Writes rows to one file; a FileError if it cannot be written."""
        path = self.folder / name
        replace_file(path, table_content(rows))
        return path

    @cached_property
    def parts(self) -> Parts[list[Row]]:
        """The rows of each finished run."""
        return Parts(self.folder / "runs", ".parquet", table_content, parse_rows, MOST_TABLE)


def parse_rows(content: bytes) -> list[Row]:
    """The rows of a file of results, of a run or of a whole study; a ValueError where it is damaged or too large."""
    try:
        file = cast("Any", pyarrow.parquet.ParquetFile(io.BytesIO(content), page_checksum_verification=True))
        batches, left = list[Any](), SPARE + GROWTH * len(content)
        for batch in file.iter_batches(_BATCH):
            batches.append(batch)
            # An entry of a dictionary may stand in any number of rows, which take no bytes of the file.
            left -= int(batch.nbytes)
            if left < 0:
                raise ValueError(f"it unpacks to more than {GROWTH} times its size")
        table = cast("Any", pa.Table).from_batches(batches, schema=file.schema_arrow)
    except (OSError, MemoryError, cast("type[Exception]", pa.ArrowException)) as error:
        raise ValueError(" ".join(str(error).split())[:200]) from error
    if cast("dict[bytes, bytes]", table.schema.metadata or {}).get(_DIGEST) != _digest(table):
        raise ValueError("its rows are not those that were written")
    return cast("list[Row]", table.to_pandas().to_dict(orient="records"))


def table_content(rows: Sequence[Row]) -> bytes:
    """Rows as a Parquet file that holds their digest."""
    table = cast("Any", pa.Table.from_pandas(pd.DataFrame(list(rows)), preserve_index=False))
    named = table.replace_schema_metadata({**(table.schema.metadata or {}), _DIGEST: _digest(table)})
    content = io.BytesIO()
    pyarrow.parquet.write_table(named, content, write_page_checksum=True)
    return content.getvalue()


def _digest(table: Any) -> bytes:
    return hashlib.sha256(json.dumps(table.to_pylist()).encode()).hexdigest().encode()


def _parsed_mark(content: bytes) -> dict[str, Any]:
    """The content of study.json; a ValueError if it is damaged."""
    written = parse_json(content)
    if not isinstance(written, dict):
        raise ValueError("it is no JSON object")
    return cast("dict[str, Any]", written)


def _only_results(folder: Path, beside: set[str]) -> bool:
    """Whether a folder without a readable study.json holds results, or nothing but files of these names."""
    # The names of runs are digests of their settings, so runs of another study are never taken for this one's.
    runs = folder / "runs"
    if runs.is_dir():
        return all(_RUN.fullmatch(path.name) for path in runs.iterdir())
    return not {path.name for path in folder.iterdir()} - beside
