"""Does the ESS of a teacher tell how well a smaller state can learn its operators?

Parnichkun et al., "Quantifying Memory Utilization with Effective State-Size", ICML 2025.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np

from statesize.lab.studies.engine.grid import SCHEDULE, SHAPE, Grid, RunMeasurements, smoke
from statesize.lab.studies.engine.statistics import correlation_evidence, mean, numbers, ranked, spearman
from statesize.lab.studies.engine.study import Panel, Study, study
from statesize.lab.studies.engine.table import DONE, Row, StudyTable, grouped, is_student, numbered
from statesize.lab.studies.engine.training import layer_column
from statesize.lab.studies.engine.verdicts import Claim, Findings

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


def students_of(table: StudyTable) -> Iterator[dict[str, Any]]:
    """Quantities of each student whose teacher did not diverge, and that does not begin as a copy of it."""
    teachers = {run.last["run"]: run for run in table.runs}
    for row in (row for row in table.rows if row["status"] == DONE and is_student(row)):
        teacher = teachers[row["run"]]
        settings, size = teacher.settings, int(row[layer_column("student_size", 0)])
        if size == teacher.key_size:
            continue

        def of_layers(column: str, row: Row, layers: int = settings["model"]["layers"]) -> list[float]:
            return [float(row[layer_column(column, layer)]) for layer in range(layers)]

        errors = of_layers("student_error", row)
        yield {
            **{"size": size, "accuracy": row["accuracy"], "error": mean(errors)},
            **{"errors": errors, "bounds": of_layers("student_bound", row), "teacher": teacher.settings_without()},
            **{"ess": mean(of_layers(ESS, teacher.last)), "initial": mean(of_layers(ESS, teacher.first))},
            **{"teacher_accuracy": teacher.accuracy, "weight": settings["training"].get("identity_weight", 0.0)},
        }


def _add_size(size: int, students: Sequence[dict[str, Any]], findings: Findings) -> None:
    """Correlations over the teachers of students of one size, each with the mean of its layers."""
    columns = ("ess", "error", "weight", "accuracy", "initial", "teacher_accuracy")
    known = {name: numbers(student[name] for student in students) for name in columns}
    ess, error, weight = known["ess"], known["error"], known["weight"]
    pairs = {
        f"n{size}_spearman": (ess, error),
        f"n{size}_accuracy_spearman": (-ess, known["accuracy"]),
        f"control_n{size}_spearman_initial": (known["initial"], error),
        f"control_n{size}_spearman_accuracy": (known["teacher_accuracy"], error),
        f"control_n{size}_spearman_weight": (weight, error),
    }
    # A grid may give one teacher several students of a size, as by two plans.
    units = numbered(student["teacher"] for student in students)
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
    panels = Panel("ESS of the teacher", "error", "student"), Panel("bound", "error", "layer")

    def analyse(self, table: StudyTable, findings: Findings) -> None:
        """Correlates the entropy-ESS of teachers with the errors of their students."""
        for size, members in sorted(grouped(students_of(table), lambda student: student["size"]).items()):
            _add_size(size, members, findings)

    def records(self, table: StudyTable) -> list[Row]:
        """A record for each student, and for each of its layers."""
        records = list[Row]()
        for student in students_of(table):
            known = {"ESS of the teacher": student["ess"], "error": student["error"]}
            records.append({"student": f"n = {student['size']}", **known})
            for layer, (error, bound) in enumerate(zip(student["errors"], student["bounds"], strict=True)):
                records.append({"layer": layer, "n": student["size"], "error": error, "bound": bound})
        return records
