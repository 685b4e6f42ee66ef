"""The study of distillation: does the ESS of a teacher tell how well a smaller state can learn its operators?

Parnichkun et al., "Quantifying Memory Utilization with Effective State-Size", ICML 2025.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import altair as alt
import numpy as np

from statesize.errors import InputError
from statesize.lab.studies.engine.charts import SIDE, chart_data, palette, points, rounded
from statesize.lab.studies.engine.conclusion import Conclusion, Findings
from statesize.lab.studies.engine.final import grid_findings, grouped
from statesize.lab.studies.engine.predictions import calibrate
from statesize.lab.studies.engine.study import Study
from statesize.lab.studies.engine.table import DONE, Row
from statesize.lab.studies.engine.training import layer_column
from statesize.lab.studies.statistics import Numbers, mean, spearman, spearman_evidence
from statesize.lab.studies.verdicts import Claim

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
losses = [0.5]
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

WANTED = (0.1, 0.2, 0.3, 0.5)
"""Losses for which sizes of held-out teachers are recommended."""

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


def conclude(rows: Sequence[Row], metric: str, claim: Claim | None = None) -> Conclusion:
    """What a grid says about teachers' ESS, students' errors, and recommended sizes; `metric` is not used."""
    del metric
    students, findings = students_of(rows), grid_findings(rows)
    given = [student for student in students if math.isnan(student.wanted)]
    sizes = grouped(given, lambda student: student.sizes[0])
    for size in sorted(sizes):
        _add_size(size, sizes[size], findings)
    _add_held_out(given, findings)
    _add_predictions(students, findings)
    _add_recommendations(students, findings)
    _add_frontier(students, lone_models(rows), findings)
    return findings.conclusion("distillation", claim, CAVEATS)


def _add_size(size: int, students: Sequence[DistilledStudent], findings: Findings) -> None:
    """Correlations over the teachers of students of one size, each with the mean of its layers."""
    names = ("teacher_ess", "errors", "initial_ess", "weight", "teacher_accuracy", "accuracy")
    ess, error, initial, weight, teacher_accuracy, accuracy = columns(students, *names)
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


def _add_held_out(given: Sequence[DistilledStudent], findings: Findings) -> None:
    """Each teacher in turn is held out, and its students' errors are predicted from those of all others."""
    ratios: list[float] = []
    wanted_met: list[bool] = []
    for teacher, own_students in grouped(given, lambda student: student.teacher).items():
        others = [layer for student in given if student.teacher != teacher for layer in _layers(student)]
        try:
            calibration = calibrate([e for e, _, _ in others], [n for _, n, _ in others], [x for *_, x in others])
        except InputError:
            # Too few, or all alike.
            continue
        own = [layer for student in own_students for layer in _layers(student)]
        ratios += [error / calibration.error(ess, size) for ess, size, error in own]
        for loss in WANTED:
            for ess, layers in grouped(own, lambda layer: layer[0]).items():
                fitting = [layer for layer in layers if calibration.error(ess, layer[1]) <= loss]
                wanted_met += [error <= loss for _, _, error in sorted(fitting, key=lambda layer: layer[1])[:1]]
    if not ratios:
        return
    within, met = float(np.mean(np.array(ratios) <= 1)), mean(wanted_met)
    findings.figures |= {
        "held_out_layers": float(len(ratios)),
        "held_out_within_prediction": within,
        "held_out_error_over_prediction": float(np.median(ratios)),
        "held_out_named": float(len(wanted_met)),
        "held_out_named_within_wanted": met,
    }
    findings.statements.append(
        f"Calibrated with the students of all other teachers, {within:.0%} of {len(ratios)} layers of held-out "
        f"teachers' students came within the predicted error (asked for: 90%). {met:.0%} of {len(wanted_met)} trained "
        f"sizes that were named in this way for losses of {', '.join(map(str, WANTED))} came within the loss."
    )


def _layers(student: DistilledStudent) -> list[tuple[float, int, float]]:
    """ESS of the teacher, size and error of each layer."""
    return list(zip(student.teacher_ess, student.sizes, student.errors, strict=True))


def _add_predictions(students: Sequence[DistilledStudent], findings: Findings) -> None:
    """The error of every layer of every student against its prediction and its lower bound."""
    if not students:
        return
    error, predicted, bound = (values.ravel() for values in columns(students, "errors", "predicted", "bounds"))
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


def _add_recommendations(students: Sequence[DistilledStudent], findings: Findings) -> None:
    """Students of the sizes that the constants of the package named when they were made."""
    named = grouped((student for student in students if not math.isnan(student.wanted)), lambda student: student.wanted)
    for wanted in sorted(named):
        fields = columns(named[wanted], "errors", "predicted", "sizes")
        error, predicted, size = (values.ravel() for values in fields)
        name = f"wanted_{wanted:g}".replace(".", "_")
        findings.figures |= {
            f"{name}_within_prediction": float(np.mean(error <= predicted)),
            f"{name}_within_wanted": float(np.mean(error <= wanted)),
            f"{name}_error": float(error.mean()),
            f"{name}_largest_error": float(error.max()),
            f"{name}_size": float(size.mean()),
        }
        findings.statements.append(
            f"Recommended for a loss of {wanted:g}: n = {size.min():.0f} to {size.max():.0f}, mean {size.mean():.1f}. "
            f"{int((error <= predicted).sum())} of {len(error)} layers came within the predicted error and "
            f"{int((error <= wanted).sum())} within the wanted one; mean {error.mean():.3f}, largest {error.max():.3f}."
        )


def _add_frontier(students: Sequence[DistilledStudent], alone: Sequence[LoneModel], findings: Findings) -> None:
    """Accuracy against bytes of state."""
    by_name = grouped([*alone, *students], _frontier_name)
    shown: list[str] = []
    for name, models in by_name.items():
        size, accuracy = mean(model.bytes for model in models), mean(model.accuracy for model in models)
        spread = float(np.std([model.accuracy for model in models]))
        findings.figures |= {f"frontier_{name}_bytes": size, f"frontier_{name}_accuracy": accuracy}
        shown.append(f"{name.replace('_', ' ')} {size:,.0f} bytes, {accuracy:.2f} ± {spread:.2f} ({len(models)})")
    findings.statements.append(
        f"Accuracy by bytes of state, mean ± standard deviation over models: {'; '.join(shown)}."
    )


def _frontier_name(model: DistilledStudent | LoneModel) -> str:
    if isinstance(model, LoneModel):
        return f"alone_n{model.key_size}"
    if math.isnan(model.wanted):
        return f"distilled_n{model.sizes[0]}"
    return f"recommended_{model.wanted:g}".replace(".", "_")


def charts(rows: Sequence[Row], metric: str) -> alt.VConcatChart:
    """Error against the teacher's ESS and against its prediction, and accuracy against bytes; `metric` is not used."""
    del metric
    students, alone = students_of(rows), lone_models(rows)
    by_student = chart_data(map(_shown, students))
    by_layer = chart_data(layer for student in students for layer in _layer_rows(student))
    by_model = chart_data([*map(_shown, students), *map(_lone, alone)])
    error = _points(
        by_student, "What students cannot learn", "ess", "Entropy-ESS of the teacher", "error", "Relative error of T"
    )
    bytes_of_state = _points(by_model, "Every model", "bytes", "Bytes of state of a sequence", "accuracy", "Accuracy")
    # Each chart has colours and a legend of its own.
    return alt.vconcat(
        alt.hconcat(error.transform_filter("!datum.wanted"), _predicted(by_layer)).resolve_scale(color="independent"),
        alt.hconcat(bytes_of_state, _frontier(by_model)).resolve_scale(color="independent"),
    ).resolve_scale(color="independent")


def _shown(student: DistilledStudent) -> dict[str, object]:
    given = math.isnan(student.wanted)
    return {
        "kind": f"distilled, n = {student.sizes[0]}" if given else f"recommended for {student.wanted:g}",
        "way": "distilled" if given else "recommended",
        "wanted": student.wanted,
        "kv": student.kv,
        "sizes": ", ".join(map(str, student.sizes)),
        "ess": student.ess,
        "error": student.error,
        "accuracy": student.accuracy,
        "bytes": student.bytes,
    }


def _layer_rows(student: DistilledStudent) -> list[dict[str, object]]:
    parts = zip(student.sizes, student.errors, student.predicted, student.bounds, strict=True)
    names = ("layer", "size", "error", "predicted", "bound")
    return [dict(zip(names, (layer, *values), strict=True)) for layer, values in enumerate(parts)]


def _lone(model: LoneModel) -> dict[str, object]:
    return {
        "kind": f"alone, n = {model.key_size}",
        "way": "alone",
        "kv": model.kv,
        "accuracy": model.accuracy,
        "bytes": model.bytes,
    }


def _points(data: alt.Data, title: str, x: str, x_title: str, y: str, y_title: str) -> alt.Chart:
    return points(
        data,
        title,
        alt.X(f"{x}:Q", title=x_title, scale=alt.Scale(zero=False)),
        alt.Y(f"{y}:Q", title=y_title),
        alt.Color("kind:N", title="Model"),
        ["kind:N", "kv:Q", "sizes:N", rounded(x, ".3"), rounded(y, ".3f")],
    )


def _predicted(data: alt.Data) -> alt.LayerChart:
    students = points(
        data,
        "Students and their prediction",
        alt.X("predicted:Q", title="Predicted: to stay below"),
        alt.Y("error:Q", title="Relative error of T, one layer"),
        palette("layer", "Layer"),
        ["layer:N", "size:Q", *(rounded(name, ".3f") for name in ("error", "predicted", "bound"))],
    )
    line = alt.Chart(data).mark_line(color="#888888").encode(x="predicted:Q", y="predicted:Q")
    return cast("alt.LayerChart", alt.layer(line, students))


def _frontier(data: alt.Data) -> alt.Chart:
    return (
        alt.Chart(data)
        .transform_aggregate(bytes="mean(bytes)", accuracy="mean(accuracy)", models="count()", groupby=["way", "kind"])
        .mark_line(point=True)
        .encode(
            x=alt.X("bytes:Q", title="Mean bytes of state of a sequence"),
            y=alt.Y("accuracy:Q", title="Mean accuracy"),
            color=palette("way", "Training"),
            order="bytes:Q",
            tooltip=["kind:N", "models:Q", rounded("bytes", ",.0f"), rounded("accuracy")],
        )
        .properties(width=SIDE, height=SIDE, title="Performance and efficiency")
    )


STUDY = Study(
    name="distillation",
    presets={"smoke": SMOKE, "record": RECORD},
    conclude=conclude,
    charts=charts,
)
