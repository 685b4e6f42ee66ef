"""The rows of a study: on disk, and as its analysis reads them, each run that did not diverge at its end and start."""

from __future__ import annotations

import io
import json
import math
import platform
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias, TypeVar, cast

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from statesize.io.files import Parts
from statesize.lab.studies.engine.statistics import Numbers, mean, numbers
from statesize.version import __version__

Row: TypeAlias = dict[str, str | int | float | bool]
Item = TypeVar("Item")
Key = TypeVar("Key", bound=Hashable)

DONE, DIVERGED = "done", "diverged"
TABLE, RUNS = "table.parquet", "runs"
FIELDS_VARYING_BY_MIXER = ("mixer", "decay_bias", "smallest_step", "largest_step", "window")
"""Fields of a model that vary on purpose where mixers are compared: the mixer, and what only some of them have."""
_NOT_LEARNED_FROM = {"measuring", "distillation"}
PLATEAU = 1.5
METRIC = "relative_0.01"
"""The column of the ESS for which claims are made."""


def finished_runs(folder: Path, study: str) -> Parts[list[Row]]:
    """The rows of each run of a study that is done, by the run's key, in the folder of its results."""
    # Studies of equal runs measure them differently.
    return Parts(folder / RUNS / study, ".parquet", table_content, parse_rows)


def versions() -> str:
    """Software and machine that make rows here."""
    return f"statesize {__version__}, torch {torch.__version__}, python {platform.python_version()}"


def parse_rows(content: bytes) -> list[Row]:
    """The rows of a file of results; a ValueError where it is damaged."""
    try:
        return cast("list[Row]", pd.read_parquet(io.BytesIO(content)).to_dict(orient="records"))
    except OSError as error:
        raise ValueError(str(error)) from error


def table_content(rows: Sequence[Row]) -> bytes:
    """Rows as a Parquet file."""
    return cast("bytes", pd.DataFrame(list(rows)).to_parquet(index=False, write_page_checksum=True))  # pyright: ignore[reportUnnecessaryCast]


@dataclass(frozen=True)
class FinalRun:
    """A run that did not diverge: columns of its last row, and its rows."""

    task: str
    kv: int
    length: int
    chance: float
    mixer: str
    key_size: int
    width: int
    seed: int
    intervention: str
    accuracy: float
    state_size: float  # TSS, averaged over mixers and positions
    last: Row
    first: Row
    trained: tuple[Row, ...]  # those after the start, in their order

    @property
    def cell(self) -> tuple[Hashable, ...]:
        """Runs of equal cells differ in nothing that TSS could tell."""
        return (self.task, self.kv, self.length, self.state_size)

    @cached_property
    def settings(self) -> dict[str, Any]:
        """The settings of the run, as `TrainingRun.to_dict` gives them."""
        return json.loads(str(self.last["settings"]))

    def settings_without(self, *varied: str) -> str:
        """All settings that a run learns by, without some fields: equal for runs that differ in nothing else."""

        def kept(fields: dict[str, Any]) -> dict[str, Any]:
            return {name: value for name, value in fields.items() if name not in _NOT_LEARNED_FROM.union(varied)}

        parts = {part: kept(of) if isinstance(of, dict) else of for part, of in kept(self.settings).items()}  # pyright: ignore[reportUnknownArgumentType]
        return json.dumps(parts, sort_keys=True)

    @property
    def guesses(self) -> bool:
        """True where the run has not left the plateau of guessing: accuracy up to `PLATEAU` times chance."""
        return self.accuracy <= PLATEAU * self.chance

    @property
    def ess(self) -> float:
        """ESS at the end."""
        return float(self.last[METRIC])

    @property
    def initial_ess(self) -> float:
        """ESS before training."""
        return float(self.first[METRIC])

    @property
    def share(self) -> float:
        """ESS/TSS at the end."""
        return self.ess / self.state_size

    @property
    def utilisation(self) -> float:
        """ESS/TSS at the end, at the cuts where the state limits ESS."""
        return float(self.last[f"utilisation_{METRIC}"])

    @property
    def record(self) -> Row:
        """Quantities of the run for charts, by the names of axes and legends."""
        shown: Row = {"row": self.task, "mixer": self.mixer, "n": self.key_size, "kv": self.kv, "seed": self.seed}
        sizes = {"TSS / kv": self.state_size / self.kv, "ESS / kv": self.ess / self.kv, "ESS / TSS": self.share}
        return {**shown, **sizes, "accuracy": self.accuracy}


@dataclass(frozen=True)
class StudyTable:
    """Rows of a study, for its analysis and charts."""

    rows: Sequence[Row]  # all, in the order of the grid; those of students follow their teacher's

    @cached_property
    def runs(self) -> list[FinalRun]:
        """The training runs that did not diverge, in the order of the rows; students are none."""
        found: list[FinalRun] = []
        own = (row for row in self.rows if row["status"] == DONE and not is_student(row))
        for rows in grouped(own, lambda row: row["run"]).values():
            for last in (row for row in rows if row["final"]):
                columns = {name: last[name] for name in FinalRun.__dataclass_fields__.keys() & last.keys()}
                trained = tuple(row for row in rows if float(row["step"]) > 0)
                first = next(row for row in rows if row["step"] == 0)
                found.append(FinalRun(**columns, last=last, first=first, trained=trained))  # pyright: ignore[reportArgumentType]
        return found


def is_student(row: Row) -> bool:
    """Tell whether a row is that of a student, which was not trained on the task."""
    # Runs without students have no such column; in one table with others it is not a number.
    return not math.isnan(float(row.get("student_divergence", math.nan)))


def grouped(items: Iterable[Item], key: Callable[[Item], Key]) -> dict[Key, list[Item]]:
    """Items by their key, in the order in which the keys first appear."""
    groups: dict[Key, list[Item]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return groups


def paired_differences(
    before: Iterable[FinalRun],
    after: Iterable[FinalRun],
    *varied: str,
    value: Callable[[FinalRun], float] = lambda run: run.accuracy,
) -> Numbers:
    """Value of a run after less that of the run before (P,), over pairs that differ only in the fields varied."""

    def means(runs: Iterable[FinalRun]) -> dict[str, float]:
        """Runs of one side that differ in nothing else are no further pairs: they count by their mean."""
        pairs = grouped(runs, lambda run: run.settings_without(*varied))
        return {pair: mean(map(value, members)) for pair, members in pairs.items()}

    first, second = means(before), means(after)
    return numbers(second[pair] - first[pair] for pair in first if pair in second)


def numbered(labels: Iterable[Hashable]) -> NDArray[np.int64]:
    """Labels as numbers (N,) from 0, in the order in which they first appear."""
    return pd.factorize(pd.Series(list(labels), dtype=object))[0].astype(np.int64)
