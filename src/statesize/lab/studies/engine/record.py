"""The record of a study: its table of runs with what made it and what it says, which follows from the table."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from statesize.errors import FileError
from statesize.lab.studies.engine.conclusion import known
from statesize.lab.studies.engine.study import Study
from statesize.lab.studies.engine.table import TABLE, Row, parse_rows, table_content

RECORD = "record.json"
_SCHEMA = 1
_CLOSE = 1e-12


@dataclass(frozen=True)
class Made:
    """What made the runs of a record: the commit that fixed the preset, its command, the date, and the machine."""

    commit: str
    command: str
    date: str
    machine: str


def record_files(study: Study, preset: str, made: Made, rows: Sequence[Row]) -> dict[str, bytes]:
    """The files of a record, by name, of the runs of a preset that are done; while some are missing, it cannot tell."""
    runs, grid = study.runs(study.preset(preset)), study.preset(preset)
    keys = {run.key for run in runs}
    rows = [row for row in rows if row["run"] in keys]
    done = len({row["run"] for row in rows})
    conclusion, table = study.conclude(rows, runs[0].metric, grid.claim), table_content(rows)
    document = {
        "schema": _SCHEMA,
        "made": {
            "commit": made.commit,
            "command": made.command,
            "versions": ", ".join(sorted({str(row["versions"]) for row in rows})),
            "date": made.date,
        },
        "study": study.kind,
        "preset": preset,
        "done_on": made.machine,
        "seeds": sorted({int(row["seed"]) for row in rows if "seed" in row}),
        "done": done,
        "total": len(keys),
        "table_sha256": hashlib.sha256(table).hexdigest(),
        "claim": conclusion.claim,
        "holds": conclusion.holds if done == len(keys) else None,
        "figures": known(conclusion.figures),
    }
    return {TABLE: table, RECORD: json.dumps(document, indent=1, ensure_ascii=False).encode() + b"\n"}


def read_rows(folder: Path) -> list[Row]:
    """The rows of a record."""
    return parse_rows((folder / TABLE).read_bytes())


def verify(study: Study, folder: Path) -> dict[str, Any]:
    """The record in a folder, computed anew from its rows; a FileError where it does not follow from them."""
    path = folder / RECORD
    try:
        kept = cast("dict[str, Any]", json.loads(path.read_bytes()))
        content, rows = (folder / TABLE).read_bytes(), read_rows(folder)
        made = Made(kept["made"]["commit"], kept["made"]["command"], kept["made"]["date"], kept["done_on"])
        again = json.loads(record_files(study, kept["preset"], made, rows)[RECORD])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FileError(f"{path} must be the record of a study, got one that cannot be read: {error!r}.") from error
    again["table_sha256"] = hashlib.sha256(content).hexdigest()
    if len({row["run"] for row in rows}) != again["done"]:
        raise FileError(f"runs of {folder / TABLE} must be those of the preset {kept['preset']}, got others.")
    kept_facts, facts = ({name: one.get(name) for name in again} | one["figures"] for one in (kept, again))
    for name in facts.keys() | kept_facts.keys():
        if name != "figures" and not _is_close(kept_facts.get(name), facts.get(name)):
            raise FileError(f"{name} of {path} must be {facts.get(name)!r}, got {kept_facts.get(name)!r}.")
    return kept


def _is_close(kept: Any, again: Any) -> bool:
    """Whether both are equal, numbers and those of lists to 1e-12."""
    if isinstance(kept, list) and isinstance(again, list):
        return len(kept) == len(again) and all(map(_is_close, kept, again))  # pyright: ignore[reportUnknownArgumentType]
    if isinstance(kept, float) and isinstance(again, float):
        return math.isclose(kept, again, rel_tol=_CLOSE, abs_tol=_CLOSE)
    return kept == again
