"""The study of distillation: does the ESS of a teacher tell how well a smaller state can learn its operators?

Parnichkun et al., "Quantifying Memory Utilization with Effective State-Size", ICML 2025.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import altair as alt
import numpy as np

from statesize.lab.studies.engine.charts import points
from statesize.lab.studies.engine.conclusion import Findings
from statesize.lab.studies.engine.final import StudyTable, grouped
from statesize.lab.studies.engine.study import Study
from statesize.lab.studies.engine.table import DONE, Row
from statesize.lab.studies.engine.training import layer_column
from statesize.lab.studies.statistics import Numbers, mean, spearman, spearman_evidence

# Seconds: to see that everything works. Nothing is learned.
SMOKE = """\
study = "distillation"

[model]
mixer = "gla"
width = 16
heads = 2
layers = 2
mlp_factor = 2
convolution_size = 2
decay_bias = 0.0

[training]
steps = 10
batch_size = 8
rate = 6e-3
weight_decay = 0.0

[measuring]
every = 10
sequences = 4

# Teachers and their students.
[[task]]
name = "mqar"
pairs = [2, 4, 6]
length = 16
vocabulary_size = 16
held_out_sequences = 32
[task.model]
key_size = 4
[task.distillation]
key_sizes = [2, 4]
steps = 5
batch_size = 8

# The students' sizes, trained alone.
[[task]]
name = "mqar"
pairs = [2, 4]
length = 16
vocabulary_size = 16
held_out_sequences = 32
[task.model]
key_size = [2, 4]
"""

RECORD = """\
# On record in docs/results/distillation: twenty-four fresh teachers, with students of one size.
study = "distillation"

# Fixed before any run with these seeds, which the pilot did not have.
[claim]
statement = "The higher the entropy-ESS of a teacher, the mean over its layers, the larger the error of its operators in a student of 4 numbers (Spearman above 0.3)."
unit = "teacher"
least_units = 24
pilot = "twelve teachers with seed 0 and those of the calibration, which chose metric, sizes and λ; by teachers it gave .83, .79 and .82"
[claim.thresholds]
"n4_spearman" = 0.3

[model]
mixer = "gla"
key_size = 16
width = 32
heads = 2
layers = 2
mlp_factor = 2
convolution_size = 2
decay_bias = 0.0

[training]
steps = 600
batch_size = 32
rate = 6e-3
warm_up = 0.1
weight_decay = 0.0
clip = 1.0
identity_weight = [0.0, 0.1, 0.3]
seed = [200, 201]

[measuring]
every = 600
sequences = 16

[[task]]
name = "mqar"
pairs = [6, 10, 16, 24]
length = 64
vocabulary_size = 64
[task.distillation]
key_sizes = [4]
steps = 400
batch_size = 16
rate = 1e-2
"""  # noqa: E501

CAVEATS = (
    "Teachers differ in the number of pairs, in the weight λ of their regularisation and in success at once, and ESS "
    "goes with all three; the control gives the correlation that is left at equal λ.",
    "The error is that of T. The error of a layer's output, whose values a student may change, does not show it.",
    "The unit is a teacher, by the means over its layers. Layers of one depth are alike, which is part of the "
    "correlation over layers: a layer's ESS and error go together more than a teacher's.",
    "A predicted error comes from a calibration with other teachers of this kind: GLA with n = 16, on this task, and "
    "students that learn for as many steps. The bound, which no recurrence of that size can pass, holds for all; "
    "students do not come near it.",
    "State bytes are those of the recurrent state in float32; the cache of the short convolutions is left out. A "
    "distilled student has had its teacher's training and its own.",
)


ESS = "entropy"
"""The metric of the claim, named beforehand: counts of singular values are nearly equal for teachers that fill n."""


@dataclass(frozen=True)
class DistilledStudent:
    """One student of the table with data of its teacher; tuples have one value a layer."""

    teacher: str  # key of the run
    kv: int
    weight: float  # λ of the teacher's training
    size: int  # n of its states
    errors: tuple[float, ...]
    predicted: tuple[float, ...]
    bounds: tuple[float, ...]
    accuracy: float
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


def students_of(rows: Sequence[Row]) -> list[DistilledStudent]:
    """The students of a table whose teachers did not diverge."""
    done = [row for row in rows if row["status"] == DONE]
    first = {row["run"]: row for row in done if row["step"] == 0}
    last = {row["run"]: row for row in done if row["final"] and not _is_student(row)}
    return [_student(row, last[row["run"]], first[row["run"]]) for row in done if _is_student(row)]


def _student(row: Row, teacher: Row, untrained: Row) -> DistilledStudent:
    settings = json.loads(str(row["settings"]))

    def of_layers(name: str, source: Row) -> tuple[float, ...]:
        return tuple(float(source[layer_column(name, layer)]) for layer in range(settings["model"]["layers"]))

    return DistilledStudent(
        teacher=str(row["run"]),
        kv=int(row["kv"]),
        weight=float(settings["training"].get("identity_weight", 0.0)),
        size=int(row[layer_column("student_size", 0)]),
        errors=of_layers("student_error", row),
        predicted=of_layers("student_predicted", row),
        bounds=of_layers("student_bound", row),
        accuracy=float(row["accuracy"]),
        teacher_ess=of_layers(ESS, teacher),
        initial_ess=of_layers(ESS, untrained),
        teacher_accuracy=float(teacher["accuracy"]),
    )


def _is_student(row: Row) -> bool:
    # Runs without students have no such column; in one table with others it is not a number.
    return not math.isnan(float(row.get("student_divergence", math.nan)))


def _frontier(rows: Sequence[Row]) -> Iterator[tuple[str, float, float]]:
    """Name, bytes of the recurrent state of a sequence in float32, and accuracy of each model, students last."""
    done = [row for row in rows if row["final"] and row["status"] == DONE]
    for row in sorted(done, key=_is_student):
        taught = _is_student(row)
        name = f"distilled_n{row[layer_column('student_size', 0)]:.0f}" if taught else f"alone_n{row['key_size']}"
        # 4 · layers · width · (mean n): a head keeps n × (width / heads) numbers.
        layers = json.loads(str(row["settings"]))["model"]["layers"]
        yield name, 4.0 * layers * float(row["width"]) * float(row["state_size"]), float(row["accuracy"])


def analyse(table: StudyTable, findings: Findings) -> None:
    """How the entropy-ESS of teachers goes with the errors of their students, and what a byte of state buys."""
    students = students_of(table.rows)
    for size, of in sorted(grouped(students, lambda student: student.size).items()):
        _add_size(size, of, findings)
    if students:
        _add_predictions(students, findings)
    shown: list[str] = []
    for name, models in grouped(_frontier(table.rows), lambda model: model[0]).items():
        size, accuracies = mean(size for _, size, _ in models), [accuracy for *_, accuracy in models]
        accuracy, spread = mean(accuracies), float(np.std(accuracies))
        findings.figures |= {f"frontier_{name}_bytes": size, f"frontier_{name}_accuracy": accuracy}
        shown.append(f"{name.replace('_', ' ')} {size:,.0f} bytes, {accuracy:.2f} ± {spread:.2f} ({len(models)})")
    findings.statements.append(
        f"Accuracy by bytes of state, mean ± standard deviation over models: {'; '.join(shown)}."
    )


def _columns(students: Sequence[DistilledStudent], *names: str) -> list[Numbers]:
    """Some fields of students as arrays, (student,) or (student, layer)."""
    return [np.array([getattr(student, name) for student in students], np.float64) for name in names]


def _add_size(size: int, students: Sequence[DistilledStudent], findings: Findings) -> None:
    """Correlations over the teachers of students of one size, each with the mean of its layers."""
    names = ("teacher_ess", "errors", "initial_ess", "weight", "teacher_accuracy", "accuracy")
    ess, error, initial, weight, teacher_accuracy, accuracy = _columns(students, *names)
    name, mean_error = f"n{size}", error.mean(1)
    pairs = {
        f"{name}_spearman": (ess.mean(1), mean_error),
        f"{name}_accuracy_spearman": (-ess.mean(1), accuracy),
        f"control_{name}_spearman_initial": (initial.mean(1), mean_error),
        f"control_{name}_spearman_accuracy": (teacher_accuracy, mean_error),
        f"control_{name}_spearman_weight": (weight, mean_error),
    }
    of_error, of_accuracy, by_initial, by_accuracy, by_weight = (
        findings.add(figure, spearman_evidence(x, y, np.arange(len(x)))) for figure, (x, y) in pairs.items()
    )
    of_weights = [weight == value for value in sorted(set(weight.tolist()))]
    equal = [spearman(ess[rows].mean(1), error[rows].mean(1)) for rows in of_weights]
    layers = [spearman(ess[:, layer], error[:, layer]) for layer in range(ess.shape[1])]
    over_layers, at_equal_weight = spearman(ess.ravel(), error.ravel()), float(np.mean(equal))
    findings.figures |= {
        f"{name}_students": float(len(students)),
        f"{name}_error": float(error.mean()),
        f"{name}_spearman_over_layers": over_layers,
        **{f"{name}_spearman_layer_{layer}": value for layer, value in enumerate(layers)},
        f"control_{name}_spearman_equal_weight": at_equal_weight,
    }
    findings.statements.append(
        f"Students with n = {size} of {len(students)} teachers: error {error.mean():.3f}; Spearman of a teacher's ESS "
        f"with its student's error {of_error}, over single layers {over_layers:.2f} (each depth "
        f"{', '.join(f'{value:.2f}' for value in layers)}), of less ESS with the student's accuracy "
        f"{of_accuracy}. Controls with the error: at equal λ {at_equal_weight:.2f}, ESS at initialisation "
        f"{by_initial}, the teacher's accuracy {by_accuracy}, λ itself {by_weight}."
    )


def _add_predictions(students: Sequence[DistilledStudent], findings: Findings) -> None:
    """The error of every layer of every student against its prediction and its lower bound."""
    error, predicted, bound = (values.ravel() for values in _columns(students, "errors", "predicted", "bounds"))
    within, above = float(np.mean(error <= predicted)), float(np.mean(error >= bound))
    ratio, correlation = float(np.median(error / predicted)), spearman(predicted, error)
    findings.figures |= {
        "layers_within_prediction": within,
        "layers_error_over_prediction": ratio,
        "layers_above_bound": above,
        "layers_spearman_prediction": correlation,
    }
    findings.statements.append(
        f"By the constants of the package, {within:.0%} of {len(error)} layers came within the predicted error (the "
        f"median is {ratio:.2f} of it; Spearman {correlation:.2f}), and {above:.0%} lie above the bound that none can "
        "pass."
    )


def draw(table: StudyTable) -> alt.VConcatChart:
    """Error against the teacher's ESS and against its prediction, and accuracy against bytes of state."""
    students = students_of(table.rows)
    by_student = [
        {"student": f"n = {student.size}", "kv": student.kv, "ESS of the teacher": student.ess, "error": student.error}
        for student in students
    ]
    by_layer = [
        {"layer": str(layer), "n": student.size, "predicted": predicted, "error": error, "bound": bound}
        for student in students
        for layer, (predicted, error, bound) in enumerate(
            zip(student.predicted, student.errors, student.bounds, strict=True)
        )
    ]
    by_model = [
        {"model": name.replace("_", " "), "bytes": size, "accuracy": accuracy}
        for name, size, accuracy in _frontier(table.rows)
    ]
    predicted = points(by_layer, "Students and their prediction, layer by layer", "predicted", "error", "layer")
    equal = (
        alt.Chart(predicted.data)
        .mark_line(color="#888888")
        .encode(x="predicted:Q", y=alt.Y("predicted:Q", title="error"))
    )
    drawn = (
        points(by_student, "What students cannot learn", "ESS of the teacher", "error", "student"),
        alt.layer(equal, predicted),
        points(by_model, "Every model", "bytes", "accuracy", "model"),
    )
    # Each chart has colours and a legend of its own.
    return alt.vconcat(alt.hconcat(*drawn).resolve_scale(color="independent"))


STUDY = Study("distillation", {"smoke": SMOKE, "record": RECORD}, CAVEATS, analyse, draw)
