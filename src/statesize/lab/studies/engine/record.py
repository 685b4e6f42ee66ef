"""The record of a study: its table of runs with what made it and what it says, which follows from the table."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from statesize.errors import FileError
from statesize.lab.studies.engine.study import Study
from statesize.lab.studies.engine.table import TABLE, Row, parse_rows, table_content

RECORD = "record.json"


def summary(study: Study, preset: str, rows: Sequence[Row]) -> dict[str, Any]:
    """Conclusion from the rows of a preset, as JSON values; while runs are missing, they cannot tell."""
    grid = study.preset(preset)
    runs, done = study.runs(grid), len({row["run"] for row in rows})
    conclusion = study.conclude(rows, grid.claim).to_dict()
    return {
        **{"study": study.kind, "preset": preset, "done": done, "total": len(runs)},
        "seeds": sorted({int(row["seed"]) for row in rows if "seed" in row}),
        "claim": conclusion["claim"],
        "holds": conclusion["holds"] if done == len(runs) else None,
        "figures": conclusion["figures"],
    }


def record_files(study: Study, preset: str, rows: Sequence[Row], made: Mapping[str, str]) -> dict[str, bytes]:
    """The files of a record, by name, with what made its rows, such as commit, command, date and machine."""
    table, versions = table_content(rows), ", ".join(sorted({str(row["versions"]) for row in rows}))
    document = {"schema": 1, "made": {**made, "versions": versions}, **summary(study, preset, rows)}
    document["table_sha256"] = hashlib.sha256(table).hexdigest()
    return {TABLE: table, RECORD: json.dumps(document, indent=1, ensure_ascii=False).encode() + b"\n"}


def verify(study: Study, folder: Path) -> dict[str, Any]:
    """The record in a folder, computed anew from its rows; a FileError where it does not follow from them."""
    path = folder / RECORD
    try:
        kept = cast("dict[str, Any]", json.loads(path.read_bytes()))
        content = (folder / TABLE).read_bytes()
        rows = parse_rows(content)
        facts: dict[str, Any] = {"table_sha256": hashlib.sha256(content).hexdigest()}
        facts |= summary(study, kept["preset"], rows)
        known = {run.key for run in study.runs(study.preset(kept["preset"]))}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FileError(f"{path} must be the record of a study, got one that cannot be read: {error!r}.") from error
    if not {row["run"] for row in rows} <= known:
        raise FileError(f"runs of {folder / TABLE} must be those of the preset {kept['preset']}, got others.")
    kept_facts: dict[str, Any] = {name: kept.get(name) for name in facts if name != "figures"} | kept["figures"]
    facts |= facts.pop("figures")
    for name in facts.keys() | kept_facts.keys():
        if not _is_close(kept_facts.get(name), facts.get(name)):
            raise FileError(f"{name} of {path} must be {facts.get(name)!r}, got {kept_facts.get(name)!r}.")
    return kept


def _is_close(kept: Any, again: Any) -> bool:
    """Tell whether both are equal, numbers and those of lists to 1e-12."""
    if isinstance(kept, list) and isinstance(again, list):
        return len(kept) == len(again) and all(map(_is_close, kept, again))  # pyright: ignore[reportUnknownArgumentType]
    if isinstance(kept, float) and isinstance(again, float):
        return math.isclose(kept, again, rel_tol=1e-12, abs_tol=1e-12)
    return kept == again
