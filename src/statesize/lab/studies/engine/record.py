"""The record of a study: its table of runs with what made it, so that figures that quote it can be checked."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np

from statesize.errors import FileError
from statesize.io.files import parse_json, read_limited, replace_files
from statesize.io.machine import machine
from statesize.io.text import counted
from statesize.lab.studies.engine.conclusion import Conclusion, known
from statesize.lab.studies.engine.study import Study
from statesize.lab.studies.engine.table import TABLE, Row, parse_rows, table_content

RECORD = "record.json"
SAMPLED = 3
"""Runs that `verify` repeats."""
_SCHEMA = 1
# What rounding in float32 changes before the first step, relative; counts are means over thousands of positions.
_ROUNDING = 1e-3


@dataclass(frozen=True, eq=False)
class StudyRecord:
    """A table of runs with its preset, its machine and its conclusion."""

    study: Study
    preset: str
    commit: str  # that fixed the preset
    date: str  # on which the runs were put on record
    done_on: str  # the machine, as training depends on the processor in its last digits, and then in all
    rows: Sequence[Row]
    conclusion: Conclusion
    done: int
    total: int  # runs of the preset

    @property
    def command(self) -> str:
        """The command line that makes the table."""
        return f"statesize study {self.study.name} --preset {self.preset}"

    @property
    def is_of_this_machine(self) -> bool:
        """Whether repeated runs have to give the same values."""
        return self.done_on == machine()

    @property
    def facts(self) -> dict[str, object]:
        """The part of record.json that follows from the rows and the preset."""
        return {
            "seeds": sorted({int(row["seed"]) for row in self.rows}),
            "done": self.done,
            "total": self.total,
        }

    @property
    def versions(self) -> str:
        """What the runs were done with."""
        return ", ".join(sorted({str(row["versions"]) for row in self.rows}))

    def content(self) -> dict[str, bytes]:
        """The files of the record by name."""
        table, conclusion = table_content(self.rows), self.conclusion
        document = {
            "schema": _SCHEMA,
            "made": {name: getattr(self, name) for name in ("commit", "command", "versions", "date")},
            "study": self.study.name,
            "preset": self.preset,
            "preset_sha256": self.study.digest(self.preset),
            "done_on": self.done_on,
            **self.facts,
            "table_sha256": hashlib.sha256(table).hexdigest(),
            "claim": conclusion.claim,
            "holds": conclusion.holds,
            "figures": known(conclusion.figures),
            "statements": conclusion.statements,
        }
        return {TABLE: table, RECORD: json.dumps(document, indent=1, ensure_ascii=False).encode() + b"\n"}


def make_record(study: Study, preset: str, commit: str, date: str, done_on: str, rows: Sequence[Row]) -> StudyRecord:
    """The record of the runs that are done; while some are missing, their verdict is None."""
    grid = study.preset(preset)
    keys = {run.key for run in grid.runs}
    rows = [row for row in rows if row["run"] in keys]
    done, total = len({row["run"] for row in rows}), len(keys)
    conclusion = study.conclude(rows, grid.metric, grid.claim)
    if done < total:
        missing = f"Unfinished: {done} of {counted(total, 'run')} are done, so nothing can be told."
        conclusion = dataclasses.replace(conclusion, holds=None, statements=(missing, *conclusion.statements))
    return StudyRecord(study, preset, commit, date, done_on, rows, conclusion, done, total)


def write_record(record: StudyRecord, folder: Path) -> None:
    """Writes table.parquet and record.json."""
    replace_files(folder, record.content())


def read_record(study: Study, folder: Path) -> StudyRecord:
    """The record of a study in a folder; a FileError names what is missing, damaged, or no longer of the preset."""
    path, table = folder / RECORD, folder / TABLE
    if not path.exists():
        raise FileError(f"{path} must be the record of a study, got no file. Name its folder, results/studies/NAME.")
    try:
        document = cast("dict[str, Any]", parse_json(read_limited(path)))
        content = table.read_bytes()
        rows, preset = parse_rows(content), str(document["preset"])
        digests = {"preset_sha256": study.digest(preset), "table_sha256": hashlib.sha256(content).hexdigest()}
        _require(document, {"schema": _SCHEMA, "study": study.name, **digests}, path)
        strange = sorted({str(row["run"]) for row in rows} - {run.key for run in study.preset(preset).runs})
        if strange:
            raise FileError(f"runs of {table} must be those of the preset, got {strange[0]}. Run the study again.")
        made, done_on = document["made"], str(document["done_on"])
        record = make_record(study, preset, str(made["commit"]), str(made["date"]), done_on, rows)
        _require(made, {"versions": record.versions}, path)
        _require(document, {**record.facts, "claim": record.conclusion.claim, "holds": record.conclusion.holds}, path)
        return record
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        raise FileError(f"{folder} holds no record that can be read ({error!r}). Run the study again.") from error


def _require(document: Mapping[str, Any], expected: Mapping[str, object], path: Path) -> None:
    """Refuses a record with a value that does not follow from its table and its preset."""
    for name, value in expected.items():
        if document[name] != value:
            raise FileError(f"{name} of {path} must be {value}, got {document[name]}. Run the study again.")


@dataclass(frozen=True)
class Repeated:
    """A run on record, done again."""

    label: str
    columns: list[str]  # with values that differ from the table
    accuracies: tuple[float, float]  # at the end, on record and again


def verify(record: StudyRecord) -> Iterator[Repeated]:
    """Repeats sampled runs of a record; a FileError if its versions are not those of this machine."""
    # On the machine of the record all values have to be equal. Another machine rounds otherwise, and training diverges
    # after some steps: only the measurement before the first step is compared, within rounding.
    versions = {str(row["run"]): row["versions"] for row in record.rows}
    seed = int.from_bytes(hashlib.sha256(record.study.digest(record.preset).encode()).digest()[:8], "little")
    sampled = np.random.default_rng(seed).choice(sorted(versions), min(SAMPLED, len(versions)), replace=False)
    runs = {run.key: run for run in record.study.preset(record.preset).runs}
    rounding = 0.0 if record.is_of_this_machine else _ROUNDING
    for key in map(str, sampled):
        again = record.study.carry_out(runs[key])
        needed, present = versions[key], again[0]["versions"]
        if present != needed:
            raise FileError(f"versions of the record must be those of this machine, {present}, got {needed}.")
        recorded = [row for row in record.rows if row["run"] == key]
        accuracies = float(recorded[-1]["accuracy"]), float(again[-1]["accuracy"])
        yield Repeated(runs[key].label, _differences(recorded, again, rounding), accuracies)


def _differences(recorded: Sequence[Row], again: Sequence[Row], rounding: float) -> list[str]:
    """Columns of a run whose values differ from the table; with rounding, of the first row alone."""
    if rounding:
        recorded, again = recorded[:1], again[:1]
    if len(recorded) != len(again):
        return ["rows"]
    # Times differ, and versions were compared before.
    names = {name for row in recorded for name in row} - {"seconds", "versions"}
    pairs = list(zip(recorded, again, strict=True))
    return sorted(
        name
        for name in names
        if not all(_equal(old.get(name, math.nan), new.get(name, math.nan), rounding) for old, new in pairs)
    )


def _equal(old: object, new: object, rounding: float) -> bool:
    if isinstance(old, float) and isinstance(new, float):
        return np.allclose(old, new, rtol=rounding, atol=rounding, equal_nan=True)
    return old == new
