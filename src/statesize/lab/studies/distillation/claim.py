"""The study of distillation: does the ESS of a teacher tell how well a smaller state can learn its operators?

Parnichkun et al., "Quantifying Memory Utilization with Effective State-Size", ICML 2025.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

import altair as alt
import numpy as np

from statesize.errors import InputError
from statesize.lab.studies.distillation.predictions import calibrate
from statesize.lab.studies.distillation.students import DistilledStudent, LoneModel, columns, lone_models, students_of
from statesize.lab.studies.grid.run import Row
from statesize.lab.studies.page.charts import SIDE, chart_data, palette, points, rounded
from statesize.lab.studies.page.conclusion import Conclusion, Findings
from statesize.lab.studies.page.final import grid_findings, grouped
from statesize.lab.studies.statistics import mean, spearman, spearman_evidence
from statesize.lab.studies.verdicts import Claim

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


def distillation(rows: Sequence[Row], metric: str, claim: Claim | None = None) -> Conclusion:
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


def distillation_charts(rows: Sequence[Row], metric: str) -> alt.VConcatChart:
    """Error against the teacher's ESS and against its prediction, and accuracy against bytes; `metric` is not used."""
    del metric
    students, alone = students_of(rows), lone_models(rows)
    by_student = chart_data(map(_student, students))
    by_layer = chart_data(layer for student in students for layer in _layer_rows(student))
    by_model = chart_data([*map(_student, students), *map(_lone, alone)])
    error = _points(
        by_student, "What students cannot learn", "ess", "Entropy-ESS of the teacher", "error", "Relative error of T"
    )
    bytes_of_state = _points(by_model, "Every model", "bytes", "Bytes of state of a sequence", "accuracy", "Accuracy")
    # Each chart has colours and a legend of its own.
    return alt.vconcat(
        alt.hconcat(error.transform_filter("!datum.wanted"), _predicted(by_layer)).resolve_scale(color="independent"),
        alt.hconcat(bytes_of_state, _frontier(by_model)).resolve_scale(color="independent"),
    ).resolve_scale(color="independent")


def _student(student: DistilledStudent) -> dict[str, object]:
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
