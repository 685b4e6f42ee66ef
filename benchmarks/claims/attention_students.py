"""From softmax to linear attention: `python -m benchmarks.claims.attention_students FOLDER FILE.json`.

Does the ESS of a teacher of softmax attention tell what a student of linear attention, with a small state in place of
the cache, loses? The grid and the claim, fixed before its runs, are in attention_students.toml: `statesize study
distillation --config benchmarks/claims/attention_students.toml --output FOLDER` does the runs, a quarter of an hour of
one core, and this writes what they say.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np

from benchmarks.claims.judged import judged, write_judged
from statesize.lab.studies.distillation import STUDY, students_of
from statesize.lab.studies.engine.run import stored_rows
from statesize.lab.studies.statistics import Evidence, Numbers, correlation_evidence, mean, ranks, within_cells
from statesize.lab.studies.verdicts import Claim

GRID = STUDY.read(Path(__file__).with_suffix(".toml"))
CLAIM = cast("Claim", GRID.claim)


def rows_of(folder: Path) -> list[dict[str, Any]]:
    """One row a teacher of a study that is done."""
    students = students_of(stored_rows(STUDY, GRID, folder))
    names = ("kv", "teacher_accuracy", "ess", "error", "accuracy")
    rows = [{name: getattr(student, name) for name in names} for student in students]
    initial = [mean(student.initial_ess) for student in students]
    return [row | {"initial_ess": ess} for row, ess in zip(rows, initial, strict=True)]


def conclusion(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The verdict, a control, and what is left among teachers of as many pairs."""
    kv, ess, initial, error, accuracy = (
        np.array([row[name] for row in rows], np.float64) for name in ("kv", "ess", "initial_ess", "error", "accuracy")
    )
    groups = kv.astype(np.int64)
    figures = {
        "n4_spearman": correlation(ranks(ess), ranks(error)),
        "n4_accuracy_spearman": correlation(-ranks(ess), ranks(accuracy)),
        "initial ESS and error": correlation(ranks(initial), ranks(error)),
        "ESS and error at equal pairs": correlation(*(within_cells(ranks(x), groups) for x in (ess, error))),
        "less ESS and accuracy at equal pairs": correlation(
            *(within_cells(ranks(x), groups) for x in (-ess, accuracy))
        ),
    }
    return judged(CLAIM, figures)


def correlation(x: Numbers, y: Numbers) -> Evidence:
    """Pearson's correlation over teachers, of ranks."""
    return correlation_evidence(x, y, np.arange(len(x)))


if __name__ == "__main__":
    teachers = rows_of(Path(sys.argv[1]))
    write_judged(teachers, conclusion(teachers), Path(sys.argv[2]))
