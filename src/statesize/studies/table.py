"""The results of a study on disk: one Parquet file a finished run, which is never changed again, and their sum."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pandas as pd

from statesize.errors import FileError
from statesize.files import check_writable, parse_json, replace_file
from statesize.studies.grid import Run
from statesize.studies.run import Row

SCHEMA = 1
MARK = "study.json"


@dataclass(frozen=True)
class ResultTable:
    """The folder of one study.

    A run's rows are written whole or not at all when it is done, so a process that is killed loses the runs that it
    was working on and nothing else. Runs of a larger grid of the same study are added to those that are there.

    Attributes:
        folder: Holds study.json, runs/KEY.parquet, and table.parquet once it is complete.
    """

    folder: Path

    @classmethod
    def open(cls, folder: Path, study: str) -> ResultTable:
        """Begins or continues the table of a study.

        Args:
            folder: Missing, empty, or that of the same study.
            study: Name of the study.

        Returns:
            The table.

        Raises:
            FileError: The folder is that of another study, holds something else, or cannot be written.
        """
        mark = folder / MARK
        if folder.exists() and not folder.is_dir():
            raise FileError(f"output is {folder}, which is a file; give a folder")
        check_writable(folder)
        if mark.is_file():
            written = _read_mark(mark)
            if written.get("study") != study or written.get("schema") != SCHEMA:
                raise FileError(
                    f"{folder} holds results of the study {written.get('study')!r}, schema {written.get('schema')!r}, "
                    f"and this is {study!r}, schema {SCHEMA}; give another folder"
                )
        elif folder.exists() and any(folder.iterdir()):
            raise FileError(f"{folder} is not empty and holds no study; give a new folder")
        else:
            replace_file(mark, json.dumps({"schema": SCHEMA, "study": study}).encode() + b"\n")
        return cls(folder)

    def add(self, run: Run, rows: Sequence[Row]) -> None:
        """Keeps the rows of a finished run; nothing is left of them where they cannot be written, a FileError.

        Args:
            run: The run.
            rows: What `carry_out` gave.
        """
        replace_file(self._path(run), _parquet(rows))

    def missing(self, runs: Sequence[Run]) -> list[Run]:
        """The runs that have no rows yet.

        Args:
            runs: A grid.

        Returns:
            Those that are to be done, also where the file of one is damaged.
        """
        return [run for run in runs if self._rows(run) is None]

    def rows(self, runs: Sequence[Run]) -> list[Row]:
        """The rows of the runs that are done, in the order of the grid.

        Args:
            runs: A grid.

        Returns:
            One a measurement.
        """
        return [row for run in runs for row in self._rows(run) or ()]

    def write(self, rows: Sequence[Row], name: str = "table.parquet") -> Path:
        """Writes rows to one file; a place that cannot be written is a FileError.

        Args:
            rows: From `rows`.
            name: Of the file.

        Returns:
            The file.
        """
        path = self.folder / name
        replace_file(path, _parquet(rows))
        return path

    def _path(self, run: Run) -> Path:
        return self.folder / "runs" / f"{run.key}.parquet"

    def _rows(self, run: Run) -> list[Row] | None:
        try:
            frame = pd.read_parquet(io.BytesIO(self._path(run).read_bytes()))
        except (OSError, ValueError):
            # It is not there, or another program has cut or changed it; the run is to be done.
            return None
        return cast("list[Row]", frame.to_dict(orient="records"))


def _parquet(rows: Sequence[Row]) -> bytes:
    content = io.BytesIO()
    pd.DataFrame(list(rows)).to_parquet(content, index=False)
    return content.getvalue()


def _read_mark(mark: Path) -> dict[str, Any]:
    try:
        written = parse_json(mark.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise FileError(f"{mark} cannot be read ({error}); give another folder") from error
    return {str(name): value for name, value in written.items()} if isinstance(written, dict) else {}  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
