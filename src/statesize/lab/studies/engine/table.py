"""The rows of a study on disk: a Parquet file for each finished run, never changed again, and one of all rows."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias, cast

import pandas as pd
import pyarrow as pa
import pyarrow.parquet

from statesize.io.files import GROWTH, SPARE, Parts
from statesize.lab.studies.engine.conclusion import RUNS

Row: TypeAlias = dict[str, str | int | float | bool]

DONE, DIVERGED = "done", "diverged"
TABLE = "table.parquet"
MOST_TABLE = 2**30
"""Bytes of a file of rows that is read."""

_BATCH = 256  # rows that are read at once


def finished_runs(folder: Path, study: str) -> Parts[list[Row]]:
    """The rows of each run of a study that is done, by the run's key, in the folder of its results."""
    # Studies of equal runs measure them differently.
    return Parts(folder / RUNS / study, ".parquet", table_content, parse_rows, MOST_TABLE)


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
    return cast("list[Row]", table.to_pandas().to_dict(orient="records"))


def table_content(rows: Sequence[Row]) -> bytes:
    """Rows as a Parquet file."""
    content = io.BytesIO()
    table = cast("Any", pa.Table.from_pandas(pd.DataFrame(list(rows)), preserve_index=False))
    pyarrow.parquet.write_table(table, content, write_page_checksum=True)
    return content.getvalue()
