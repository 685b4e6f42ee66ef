"""The models of the study of distillation: each student with data of its teacher, and models without a teacher."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from statesize.lab.studies.grid.run import DONE, Row, layer_column
from statesize.lab.studies.statistics import Numbers, mean

ESS = "entropy"
"""The metric of the claim, named beforehand: counts of singular values are nearly equal for teachers that fill n."""


@dataclass(frozen=True)
class DistilledStudent:
    """One student of the table with data of its teacher; tuples have one value a layer."""

    teacher: str  # key of the run
    kv: int
    weight: float  # λ of the teacher's training
    wanted: float  # operator error for which its sizes were recommended; NaN for sizes of the plan
    sizes: tuple[int, ...]
    errors: tuple[float, ...]
    predicted: tuple[float, ...]
    bounds: tuple[float, ...]
    accuracy: float
    bytes: float  # of the recurrent state of one sequence, in float32
    teacher_ess: tuple[float, ...]  # entropy-ESS
    initial_ess: tuple[float, ...]  # that of the teacher before training
    teacher_accuracy: float

    @property
    def error(self) -> float:
        """The mean operator error of the layers."""
        return mean(self.errors)

    @property
    def ess(self) -> float:
        """The mean entropy-ESS of the teacher's layers."""
        return mean(self.teacher_ess)


@dataclass(frozen=True)
class LoneModel:
    """A model that was trained on its own: a teacher, or one with the state of a student."""

    key_size: int
    kv: int
    accuracy: float
    bytes: float  # of the recurrent state of one sequence, in float32


def students_of(rows: Sequence[Row]) -> list[DistilledStudent]:
    """The students of a table whose teachers did not diverge."""
    own = [row for row in rows if row["status"] == DONE and not _is_student(row)]
    first = {row["run"]: row for row in own if row["step"] == 0}
    last = {row["run"]: row for row in own if row["final"]}
    return [
        _student(row, last[row["run"]], first[row["run"]]) for row in rows if row["status"] == DONE and _is_student(row)
    ]


def columns(students: Sequence[DistilledStudent], *names: str) -> list[Numbers]:
    """Some fields of students as arrays, (student,) or (student, layer)."""
    return [np.array([getattr(student, name) for student in students], np.float64) for name in names]


def _student(row: Row, teacher: Row, untrained: Row) -> DistilledStudent:
    settings = json.loads(str(row["settings"]))

    def of_layers(name: str, source: Row) -> tuple[float, ...]:
        return tuple(float(source[layer_column(name, layer)]) for layer in range(settings["model"]["layers"]))

    return DistilledStudent(
        teacher=str(row["run"]),
        kv=int(row["kv"]),
        weight=float(settings["training"].get("identity_weight", 0.0)),
        wanted=float(row["student_wanted"]),
        sizes=tuple(map(int, of_layers("student_size", row))),
        errors=of_layers("student_error", row),
        predicted=of_layers("student_predicted", row),
        bounds=of_layers("student_bound", row),
        accuracy=float(row["accuracy"]),
        bytes=_state_bytes(row),
        teacher_ess=of_layers(ESS, teacher),
        initial_ess=of_layers(ESS, untrained),
        teacher_accuracy=float(teacher["accuracy"]),
    )


def lone_models(rows: Sequence[Row]) -> list[LoneModel]:
    """The models of a table without a teacher that did not diverge."""
    return [
        LoneModel(int(row["key_size"]), int(row["kv"]), float(row["accuracy"]), _state_bytes(row))
        for row in rows
        if row["final"] and row["status"] == DONE and not _is_student(row)
    ]


def _state_bytes(row: Row) -> float:
    """Bytes of the recurrent state of one sequence, in float32, for a model whose mixers have heads."""
    # 4 · layers · width · (mean n): a head keeps n × (width / heads) numbers.
    layers = json.loads(str(row["settings"]))["model"]["layers"]
    return 4.0 * layers * float(row["width"]) * float(row["state_size"])


def _is_student(row: Row) -> bool:
    # Runs without students have no such column; in one table with others it is not a number.
    return not math.isnan(float(row.get("student_divergence", math.nan)))
