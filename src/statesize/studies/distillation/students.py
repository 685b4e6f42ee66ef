"""What the study of distillation looks at: each student with what its teacher was, and models without a teacher."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from statesize.studies.grid.run import DONE, Row, layer_column

ESS = "entropy"
"""The metric of the claim, named beforehand: counts of singular values are nearly equal for teachers that fill n."""


@dataclass(frozen=True)
class DistilledStudent:
    """One student of the table with what its teacher was.

    Attributes:
        teacher: Key of the run.
        kv: Pairs of the task.
        weight: λ of the teacher's training.
        seed: Of the teacher's training.
        wanted: Operator error for which its sizes were named; NaN where they were given.
        sizes: n of each layer.
        errors: Operator error of each layer.
        predicted: Of each layer.
        bounds: Of each layer.
        accuracy: At the end.
        bytes: Of the recurrent state of one sequence, in float32.
        teacher_ess: Entropy-ESS of each layer of the teacher.
        initial_ess: The same before training.
        teacher_accuracy: At the end.
    """

    teacher: str
    kv: int
    weight: float
    seed: int
    wanted: float
    sizes: tuple[int, ...]
    errors: tuple[float, ...]
    predicted: tuple[float, ...]
    bounds: tuple[float, ...]
    accuracy: float
    bytes: float
    teacher_ess: tuple[float, ...]
    initial_ess: tuple[float, ...]
    teacher_accuracy: float

    @property
    def error(self) -> float:
        """The mean operator error of the layers."""
        return float(np.mean(self.errors))

    @property
    def ess(self) -> float:
        """The mean entropy-ESS of the teacher's layers."""
        return float(np.mean(self.teacher_ess))


@dataclass(frozen=True)
class LoneModel:
    """A model that was trained on its own: a teacher, or one with the state of a student.

    Attributes:
        key_size: n.
        kv: Pairs of the task.
        accuracy: At the end.
        bytes: Of the recurrent state of one sequence, in float32.
    """

    key_size: int
    kv: int
    accuracy: float
    bytes: float


def students_of(rows: Sequence[Row]) -> list[DistilledStudent]:
    """The students of a table whose teachers did not diverge.

    Args:
        rows: All rows of the study.

    Returns:
        One a student.
    """
    own = [row for row in rows if row["status"] == DONE and not _is_student(row)]
    first = {row["run"]: row for row in own if row["step"] == 0}
    last = {row["run"]: row for row in own if row["final"]}
    found: list[DistilledStudent] = []
    for row in rows:
        if row["status"] != DONE or not _is_student(row):
            continue
        teacher, settings = last[row["run"]], json.loads(str(row["settings"]))
        layers = range(int(settings["model"]["layers"]))

        def of_layers(name: str, source: Row, layers: range = layers) -> tuple[float, ...]:
            return tuple(float(source[layer_column(name, layer)]) for layer in layers)

        found.append(
            DistilledStudent(
                teacher=str(row["run"]),
                kv=int(row["kv"]),
                weight=float(settings["training"].get("identity_weight", 0.0)),
                seed=int(row["seed"]),
                wanted=float(row["student_wanted"]),
                sizes=tuple(map(int, of_layers("student_size", row))),
                errors=of_layers("student_error", row),
                predicted=of_layers("student_predicted", row),
                bounds=of_layers("student_bound", row),
                accuracy=float(row["accuracy"]),
                bytes=state_bytes(row),
                teacher_ess=of_layers(ESS, teacher),
                initial_ess=of_layers(ESS, first[row["run"]]),
                teacher_accuracy=float(teacher["accuracy"]),
            )
        )
    return found


def lone_models(rows: Sequence[Row]) -> list[LoneModel]:
    """The models of a table that no other has taught.

    Args:
        rows: All rows of the study.

    Returns:
        One a run that did not diverge.
    """
    return [
        LoneModel(int(row["key_size"]), int(row["kv"]), float(row["accuracy"]), state_bytes(row))
        for row in rows
        if row["final"] and row["status"] == DONE and not _is_student(row)
    ]


def state_bytes(row: Row) -> float:
    """Bytes of the recurrent state of one sequence, in float32.

    Args:
        row: Of a model whose mixers have heads.

    Returns:
        4 · layers · width · (mean n): a head keeps n × (width / heads) numbers.
    """
    layers = json.loads(str(row["settings"]))["model"]["layers"]
    return 4.0 * layers * float(row["width"]) * float(row["state_size"])


def _is_student(row: Row) -> bool:
    # Runs without students have no such column; in one table with others it is not a number.
    return not math.isnan(float(row.get("student_divergence", math.nan)))
