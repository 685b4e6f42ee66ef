"""Does the ESS of a teacher tell how well a smaller state can learn its operators?

Parnichkun et al., "Quantifying Memory Utilization with Effective State-Size", ICML 2025.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import altair as alt
import numpy as np

from statesize.lab.studies.engine.charts import points
from statesize.lab.studies.engine.conclusion import Findings
from statesize.lab.studies.engine.grid import SCHEDULE, SHAPE, Grid, RunMeasurements, smoke
from statesize.lab.studies.engine.statistics import Numbers, correlation_evidence, mean, numbers, ranked, spearman
from statesize.lab.studies.engine.study import Study, study
from statesize.lab.studies.engine.table import DONE, Row, StudyTable, grouped, is_student, numbered
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
    "State bytes are those of the recurrent state in float32; the cache of the short convolutions is left out. A "
    "distilled student has had its teacher's training and its own.",
)


ESS = "entropy"
"""The metric of the claim, named beforehand: counts of singular values are nearly equal for teachers that fill n."""


@dataclass(frozen=True)
class DistilledStudent:
    """One student of the table with data of its teacher; tuples have one value per layer."""

    teacher: str  # all settings of the teacher's training
    kv: int
    weight: float  # λ of the teacher's training
    size: int  # n of its states
    errors: tuple[float, ...]
    bounds: tuple[float, ...]
    accuracy: float
    teacher_ess: tuple[float, ...]  # entropy-ESS
    initial_ess: tuple[float, ...]  # that of the teacher before training
    teacher_accuracy: float

    @property
    def ess(self) -> float:
        """The mean entropy-ESS of the teacher's layers."""
        return mean(self.teacher_ess)


def students_of(rows: Sequence[Row]) -> list[DistilledStudent]:
    """The students of a table whose teachers did not diverge, and that do not begin as copies of these."""
    done = [row for row in rows if row["status"] == DONE]
    first = {row["run"]: row for row in done if row["step"] == 0 and not is_student(row)}
    last = {row["run"]: row for row in done if row["final"] and not is_student(row)}
    smaller = (row for row in done if is_student(row) and row[layer_column("student_size", 0)] != row["key_size"])
    return [_student(row, last[row["run"]], first[row["run"]]) for row in smaller]


def _student(row: Row, teacher: Row, untrained: Row) -> DistilledStudent:
    settings = json.loads(str(row["settings"]))

    def of_layers(name: str, source: Row) -> tuple[float, ...]:
        return tuple(float(source[layer_column(name, layer)]) for layer in range(settings["model"]["layers"]))

    return DistilledStudent(
        teacher=json.dumps({name: value for name, value in settings.items() if name != "distillation"}),
        kv=int(row["kv"]),
        weight=float(settings["training"].get("identity_weight", 0.0)),
        size=int(row[layer_column("student_size", 0)]),
        errors=of_layers("student_error", row),
        bounds=of_layers("student_bound", row),
        accuracy=float(row["accuracy"]),
        teacher_ess=of_layers(ESS, teacher),
        initial_ess=of_layers(ESS, untrained),
        teacher_accuracy=float(teacher["accuracy"]),
    )


def _frontier(rows: Sequence[Row]) -> Iterator[tuple[str, float, float]]:
    """Name, bytes of the recurrent state of a sequence in float32, and accuracy of each model, students last."""
    done = [row for row in rows if row["final"] and row["status"] == DONE]
    for row in sorted(done, key=is_student):
        of_student = f"distilled n{row.get(layer_column('student_size', 0), 0.0):.0f}"
        name = of_student if is_student(row) else f"alone n{row['key_size']}"
        # 4 · layers · width · (mean n): a head keeps n × (width / heads) numbers.
        layers = json.loads(str(row["settings"]))["model"]["layers"]
        yield name, 4.0 * layers * float(row["width"]) * float(row["state_size"]), float(row["accuracy"])


def _add_size(size: int, students: Sequence[DistilledStudent], findings: Findings) -> None:
    """Correlations over the teachers of students of one size, each with the mean of its layers."""

    def over(value: Callable[[DistilledStudent], float]) -> Numbers:
        return numbers(map(value, students))

    ess, error, weight = over(lambda one: one.ess), over(lambda one: mean(one.errors)), over(lambda one: one.weight)
    pairs = {
        f"n{size}_spearman": (ess, error),
        f"n{size}_accuracy_spearman": (-ess, over(lambda one: one.accuracy)),
        f"control_n{size}_spearman_initial": (over(lambda one: mean(one.initial_ess)), error),
        f"control_n{size}_spearman_accuracy": (over(lambda one: one.teacher_accuracy), error),
        f"control_n{size}_spearman_weight": (weight, error),
    }
    # A grid may give one teacher several students of a size, as by two plans.
    units = numbered([one.teacher for one in students])
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
        """How the entropy-ESS of teachers goes with the errors of their students, and what a byte of state buys."""
        students = students_of(table.rows)
        for size, members in sorted(grouped(students, lambda student: student.size).items()):
            _add_size(size, members, findings)
        if students:
            layers = [layer for one in students for layer in zip(one.errors, one.bounds, strict=True)]
            findings.figures["layers_above_bound"] = mean(error >= bound for error, bound in layers)
        for name, models in grouped(_frontier(table.rows), lambda model: model[0]).items():
            figure = f"frontier_{name.replace(' ', '_')}"
            findings.figures[f"{figure}_bytes"] = mean(size for _, size, _ in models)
            findings.figures[f"{figure}_accuracy"] = mean(accuracy for *_, accuracy in models)

    def draw(self, table: StudyTable) -> alt.VConcatChart:
        """Error against the teacher's ESS and against its bound, and accuracy against bytes of state."""
        students = students_of(table.rows)
        by_student = [
            {"student": f"n = {one.size}", "kv": one.kv, "ESS of the teacher": one.ess, "error": mean(one.errors)}
            for one in students
        ]
        by_layer = [
            {"layer": str(layer), "n": student.size, "error": error, "bound": bound}
            for student in students
            for layer, (error, bound) in enumerate(zip(student.errors, student.bounds, strict=True))
        ]
        by_model = [{"model": name, "bytes": size, "accuracy": got} for name, size, got in _frontier(table.rows)]
        drawn = (
            points(by_student, "What students cannot learn", "ESS of the teacher", "error", "student"),
            points(by_layer, "Students and their bound, layer by layer", "bound", "error", "layer"),
            points(by_model, "Every model", "bytes", "accuracy", "model"),
        )
        # Each chart has colours and a legend of its own.
        return alt.vconcat(alt.hconcat(*drawn).resolve_scale(color="independent"))
