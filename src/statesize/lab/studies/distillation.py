"""Does the ESS of a teacher tell how well a smaller state can learn its operators?

Parnichkun et al., "Quantifying Memory Utilization with Effective State-Size", ICML 2025.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import ClassVar

import altair as alt
import numpy as np

from statesize.lab.studies.engine.charts import points
from statesize.lab.studies.engine.conclusion import Findings
from statesize.lab.studies.engine.grid import SCHEDULE, SHAPE, Grid, RunMeasurements, smoke
from statesize.lab.studies.engine.statistics import Numbers, correlation_evidence, mean, numbers, ranked, spearman
from statesize.lab.studies.engine.study import Study, study
from statesize.lab.studies.engine.table import DONE, FinalRun, Row, StudyTable, grouped, is_student, numbered
from statesize.lab.studies.engine.training import layer_column
from statesize.lab.studies.engine.verdicts import Claim

# Teachers and their students, and the students' sizes, trained alone.
SMOKE = smoke(
    [
        {"pairs": [2, 4], "model": {"key_size": 4, "layers": 2}}
        | {"distillation": {"key_sizes": [2], "steps": 5, "batch_size": 8}},
        {"pairs": 2, "model": {"key_size": [2, 4], "layers": 2}},
    ]
)

RECORD = Grid(
    claim=Claim(
        statement="The higher the entropy-ESS of a teacher, the mean over its layers, the larger the error of its "
        "operators in a student of 4 numbers (Spearman above 0.3).",
        unit="teacher",
        least_units=24,
        pilot="twelve teachers with seed 0 and those of the calibration, which chose metric, sizes and λ; by "
        "teachers it gave .83, .79 and .82",
        thresholds={"n4_spearman": 0.3},
    ),
    model=SHAPE | {"mixer": "gla", "key_size": 16, "width": 32, "decay_bias": 0.0},
    training=SCHEDULE
    | {"steps": 600, "batch_size": 32, "rate": 0.006, "identity_weight": [0.0, 0.1, 0.3], "seed": [200, 201]},
    measuring=RunMeasurements(every=600, sequences=16),
    tasks=[
        {"name": "mqar", "pairs": [6, 10, 16, 24], "length": 64, "vocabulary_size": 64}
        | {"distillation": {"key_sizes": [4], "steps": 400, "batch_size": 16, "rate": 0.01}}
    ],
)

# Four minutes of a core: twelve new teachers, which show the correlation; its verdict needs twice as many.
LAPTOP = replace(RECORD, tasks=[RECORD.tasks[0] | {"pairs": [10, 24]}], training=RECORD.training | {"seed": [300, 301]})

CAVEATS = (
    "Teachers differ in the number of pairs, in the weight λ of their regularisation and in success at once, and ESS "
    "goes with all three; the control gives the correlation that is left at equal λ.",
    "The error is that of T. The error of a layer's output, whose values a student may change, does not show it.",
    "The unit is a teacher, by the means over its layers: a layer's ESS and error go together more, as layers of one "
    "depth are alike.",
    "The bound, which no recurrence of that size can pass, holds for all; students do not come near it.",
)


ESS = "entropy"
"""The metric of the claim, named beforehand: counts of singular values are nearly equal for teachers that fill n."""


@dataclass(frozen=True, eq=False)
class DistilledStudent:
    """One student of the table with its teacher."""

    row: Row
    teacher: FinalRun

    @property
    def size(self) -> int:
        """The n of its states."""
        return int(self.row[layer_column("student_size", 0)])

    @property
    def weight(self) -> float:
        """The λ of its teacher's training."""
        return float(self.teacher.settings["training"].get("identity_weight", 0.0))

    def of_layers(self, column: str, row: Row) -> list[float]:
        """A column of each layer, in a row of its own or of its teacher."""
        return [float(row[layer_column(column, layer)]) for layer in range(self.teacher.settings["model"]["layers"])]

    @property
    def error(self) -> float:
        """The mean error of its operators over layers."""
        return mean(self.of_layers("student_error", self.row))

    @property
    def ess(self) -> float:
        """The mean entropy-ESS of the teacher's layers."""
        return mean(self.of_layers(ESS, self.teacher.last))

    @property
    def bounded(self) -> list[tuple[float, float]]:
        """Error and bound of each layer."""
        columns = (self.of_layers(f"student_{name}", self.row) for name in ("error", "bound"))
        return list(zip(*columns, strict=True))


def students_of(table: StudyTable) -> list[DistilledStudent]:
    """The students of a table whose teachers did not diverge, and that do not begin as copies of these."""
    teachers = {run.last["run"]: run for run in table.runs}
    done = (row for row in table.rows if row["status"] == DONE and is_student(row))
    found = (DistilledStudent(row, teachers[row["run"]]) for row in done)
    return [student for student in found if student.size != student.teacher.key_size]


def _add_size(size: int, students: Sequence[DistilledStudent], findings: Findings) -> None:
    """Correlations over the teachers of students of one size, each with the mean of its layers."""

    def over(value: Callable[[DistilledStudent], float]) -> Numbers:
        return numbers(map(value, students))

    ess, error, weight = (over(attrgetter(name)) for name in ("ess", "error", "weight"))
    initial = over(lambda student: mean(student.of_layers(ESS, student.teacher.first)))
    pairs = {
        f"n{size}_spearman": (ess, error),
        f"n{size}_accuracy_spearman": (-ess, over(lambda student: float(student.row["accuracy"]))),
        f"control_n{size}_spearman_initial": (initial, error),
        f"control_n{size}_spearman_accuracy": (over(attrgetter("teacher.accuracy")), error),
        f"control_n{size}_spearman_weight": (weight, error),
    }
    # A grid may give one teacher several students of a size, as by two plans.
    units = numbered([student.teacher.settings_without() for student in students])
    findings.figures |= {f"n{size}_students": float(len(students)), f"n{size}_error": mean(error)}
    for name, (x, y) in pairs.items():
        findings.add(name, correlation_evidence(x, y, units, prepare=ranked))
    equal = mean(spearman(ess[weight == value], error[weight == value]) for value in np.unique(weight))
    findings.figures[f"control_n{size}_spearman_equal_weight"] = equal


@study("distillation")
class Distillation(Study):
    """The study of distillation."""

    presets: ClassVar = {"smoke": SMOKE, "laptop": LAPTOP, "record": RECORD}
    caveats = CAVEATS

    def analyse(self, table: StudyTable, findings: Findings) -> None:
        """How the entropy-ESS of teachers goes with the errors of their students, and whether the bound holds."""
        students = students_of(table)
        for size, members in sorted(grouped(students, lambda student: student.size).items()):
            _add_size(size, members, findings)
        if students:
            layers = (layer for student in students for layer in student.bounded)
            findings.figures["layers_above_bound"] = mean(error >= bound for error, bound in layers)

    def draw(self, table: StudyTable) -> alt.VConcatChart:
        """Error against the teacher's ESS and against its bound."""
        students = students_of(table)
        by_student = [
            {"student": f"n = {student.size}", "kv": student.teacher.kv, "error": student.error}
            | {"ESS of the teacher": student.ess}
            for student in students
        ]
        by_layer = [
            {"layer": str(layer), "n": student.size, "error": error, "bound": bound}
            for student in students
            for layer, (error, bound) in enumerate(student.bounded)
        ]
        drawn = (
            points(by_student, "What students cannot learn", "ESS of the teacher", "error", "student"),
            points(by_layer, "Students and their bound, layer by layer", "bound", "error", "layer"),
        )
        # Each chart has colours and a legend of its own.
        return alt.vconcat(alt.hconcat(*drawn).resolve_scale(color="independent"))
