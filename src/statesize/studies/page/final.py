"""What the analyses of a study look at: each run as it ended, with what was measured at its start."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from statesize.studies.grid.run import DONE, Row


@dataclass(frozen=True)
class FinalRun:
    """A run that did not diverge.

    Attributes:
        task: Name of the task.
        kv: What a sequence asks to keep at once.
        length: Tokens of a sequence.
        chance: Accuracy of guessing.
        mixer: Name of the mixer, or pattern.
        key_size: n of the model.
        heads: Heads of a mixer.
        width: Model dimension.
        rate: Learning rate.
        seed: Of weights and batches.
        intervention: What was done to the model before training.
        accuracy: On the held-out sequences, at the end.
        state_size: TSS, averaged over mixers and positions.
        last: All columns at the end.
        first: All columns at the start.
    """

    task: str
    kv: int
    length: int
    chance: float
    mixer: str
    key_size: int
    heads: int
    width: int
    rate: float
    seed: int
    intervention: str
    accuracy: float
    state_size: float
    last: Row
    first: Row

    @property
    def cell(self) -> tuple[Hashable, ...]:
        """Runs of equal cells differ in nothing that TSS could tell."""
        return (self.task, self.kv, self.length, self.state_size)

    @property
    def configuration(self) -> tuple[Hashable, ...]:
        """Runs of equal configurations differ in rate and seed only."""
        shape = (self.mixer, self.key_size, self.heads, self.width, self.intervention)
        return (self.task, self.kv, self.length, *shape)


def final_runs(rows: Iterable[Row]) -> list[FinalRun]:
    """The runs of a table that did not diverge.

    Args:
        rows: All rows of a study.

    Returns:
        One a run, in the order of the rows.
    """
    rows = list(rows)
    first = {row["run"]: row for row in rows if row["step"] == 0}
    names = FinalRun.__dataclass_fields__.keys() - {"last", "first"}
    return [
        FinalRun(**_chosen(row, names), last=row, first=first[row["run"]])
        for row in rows
        if row["final"] and row["status"] == DONE
    ]


def diverged(rows: Iterable[Row]) -> int:
    """How many runs diverged.

    Args:
        rows: All rows of a study.

    Returns:
        Their number.
    """
    return sum(row["status"] != DONE for row in rows)


def diverged_statement(rows: Iterable[Row]) -> list[str]:
    """What a conclusion says of runs that diverged.

    Args:
        rows: All rows of a study.

    Returns:
        A sentence, or nothing where all are well.
    """
    count = diverged(rows)
    return [f"{count} runs diverged; they are in the table and in none of the figures."] if count else []


def numbered(labels: Sequence[Hashable]) -> NDArray[np.int64]:
    """Labels as numbers from 0, in the order in which they first appear.

    Args:
        labels: N of them.

    Returns:
        (N,); equal labels have equal numbers.

    Example:
        >>> numbered(["b", "a", "b"])
        array([0, 1, 0])
    """
    numbers: dict[Hashable, int] = {}
    return np.array([numbers.setdefault(label, len(numbers)) for label in labels], np.int64)


def _chosen(row: Row, names: Iterable[str]) -> dict[str, Any]:
    return {name: row[name] for name in names}
