"""The study of distillation: does the ESS of a teacher tell how well a smaller state can learn its operators?

Parnichkun et al., "Quantifying Memory Utilization with Effective State-Size", ICML 2025.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from statesize.errors import InputError
from statesize.reduction.recommendation import calibrate
from statesize.studies.distillation.students import DistilledStudent, LoneModel, lone_models, students_of
from statesize.studies.grid.run import Row
from statesize.studies.page.conclusion import Conclusion, Figure
from statesize.studies.page.final import diverged, diverged_statement
from statesize.studies.page.statistics import Interval, Numbers, bootstrap, pearson, spearman

LEAST_CORRELATION = 0.8
"""The claim asks for this rank correlation at every size of the student."""

WANTED = (0.1, 0.2, 0.3, 0.5)
"""Losses for which sizes are named of held-out teachers."""

CAVEATS = (
    "Teachers differ in the number of pairs, in the weight λ of their regularisation and in success at once, and ESS "
    "goes with all three; the control gives the correlation that is left at equal λ.",
    "The error is that of T. The error of a layer's output, whose values a student may change, does not show it.",
    "The unit is a layer of a teacher, whose operators a student's layer learns by itself. Part of the correlation is "
    "that layers of one depth are alike; each depth by itself is given too, and so are means over a model's layers, "
    "which go together less: where one layer holds more, the other tends to hold less.",
    "A predicted error comes from a calibration with other teachers of this kind: GLA with n = 16, on this task, and "
    "students that learn for as many steps. The bound, which no recurrence of that size can pass, holds for all; "
    "students do not come near it.",
    "State bytes are those of the recurrent state in float32; the cache of the short convolutions is left out. A "
    "distilled student has had its teacher's training and its own.",
)


def distillation(rows: Sequence[Row], metric: str) -> Conclusion:
    """What a grid says about teachers' ESS, students' errors, and recommended sizes.

    Args:
        rows: All rows of the study.
        metric: Not used: the metric of this claim is the entropy-ESS.

    Returns:
        The conclusion.
    """
    del metric
    students, alone = students_of(rows), lone_models(rows)
    figures: dict[str, Figure] = {"diverged": float(diverged(rows))}
    statements: list[str] = []
    given = [student for student in students if math.isnan(student.wanted)]
    found: list[float] = []
    for size in sorted({student.sizes[0] for student in given}):
        more, statement, correlation = _of_size(size, [student for student in given if student.sizes[0] == size])
        figures |= more
        statements.append(statement)
        found.append(correlation)
    for figures_of in (_held_out, _predictions, _recommendations):
        more, lines = figures_of(students)
        figures |= more
        statements += lines
    more, lines = _frontier(students, alone)
    figures |= more
    statements += lines
    statements += diverged_statement(rows)
    holds = None if not found or np.isnan(found).any() else min(found) >= LEAST_CORRELATION
    claim = (
        "The higher the entropy-ESS of a teacher's layer, the larger the error of its operators in a student of fixed "
        f"size (Spearman at least {LEAST_CORRELATION} over the layers of all teachers, at every size)."
    )
    return Conclusion("distillation", claim, holds, figures, tuple(statements), CAVEATS)


def _of_size(size: int, students: Sequence[DistilledStudent]) -> tuple[dict[str, Figure], str, float]:
    # One row a teacher, one column a layer.
    ess = np.array([student.teacher_ess for student in students])
    error = np.array([student.errors for student in students])
    initial = np.array([student.initial_ess for student in students])
    weight = np.array([student.weight for student in students])
    every = _interval(spearman, ess, error)
    equal = [spearman(ess[weight == one].ravel(), error[weight == one].ravel()) for one in sorted(set(weight.tolist()))]
    layers = [spearman(ess[:, layer], error[:, layer]) for layer in range(ess.shape[1])]
    accuracy = np.array([student.teacher_accuracy for student in students])
    name = f"n{size}"
    figures: dict[str, Figure] = {
        f"{name}_students": float(len(students)),
        f"{name}_error": float(error.mean()),
        f"{name}_spearman": every.value,
        f"{name}_spearman_interval": (every.low, every.high),
        f"{name}_pearson": pearson(ess.ravel(), error.ravel()),
        **{f"{name}_spearman_layer_{layer}": value for layer, value in enumerate(layers)},
        f"{name}_spearman_of_means": spearman(ess.mean(1), error.mean(1)),
        f"control_{name}_spearman_equal_weight": float(np.mean(equal)),
        f"control_{name}_spearman_initial": spearman(initial.ravel(), error.ravel()),
        f"control_{name}_spearman_accuracy": spearman(accuracy, error.mean(1)),
    }
    by_layer = ", ".join(f"{value:.2f}" for value in layers)
    statement = (
        f"Students with n = {size} of {len(students)} teachers, {error.size} layers: error {error.mean():.3f}; "
        f"Spearman of a layer's ESS with its error {every}, Pearson "
        f"{figures[f'{name}_pearson']:.2f}; each layer by itself {by_layer}; means over layers "
        f"{figures[f'{name}_spearman_of_means']:.2f}. Controls: at equal λ "
        f"{figures[f'control_{name}_spearman_equal_weight']:.2f}, ESS at initialisation "
        f"{figures[f'control_{name}_spearman_initial']:.2f}, the teacher's accuracy with the mean error "
        f"{figures[f'control_{name}_spearman_accuracy']:.2f}."
    )
    return figures, statement, every.value


def _interval(statistic: Callable[[Numbers, Numbers], float], x: Numbers, y: Numbers) -> Interval:
    # Layers of one teacher are drawn together.
    def of_rows(rows: NDArray[np.int64]) -> float:
        return statistic(x[rows].ravel(), y[rows].ravel())

    return bootstrap(of_rows, np.arange(len(x)))


def _predictions(students: Sequence[DistilledStudent]) -> tuple[dict[str, Figure], list[str]]:
    """Every layer of every student against what was predicted and what is possible."""
    if not students:
        return {}, []
    layers = [values for one in students for values in zip(one.errors, one.predicted, one.bounds, strict=True)]
    error, predicted, bound = (np.array(part) for part in zip(*layers, strict=True))
    within, above = float(np.mean(error <= predicted)), float(np.mean(error >= bound))
    figures: dict[str, Figure] = {
        "layers_within_prediction": within,
        "layers_error_over_prediction": float(np.median(error / predicted)),
        "layers_above_bound": above,
        "layers_spearman_prediction": spearman(predicted, error),
    }
    statement = (
        f"By the constants of the package, {within:.0%} of {len(layers)} layers came within the predicted error (the "
        f"median is {figures['layers_error_over_prediction']:.2f} of it; Spearman "
        f"{figures['layers_spearman_prediction']:.2f}), and {above:.0%} lie above the bound that none can pass."
    )
    return figures, [statement]


def _held_out(students: Sequence[DistilledStudent]) -> tuple[dict[str, Figure], list[str]]:
    """Every teacher in turn is held out: what the students of the others tell of its own."""
    given = [student for student in students if math.isnan(student.wanted)]
    ratios: list[float] = []
    wanted_met: list[bool] = []
    for teacher in dict.fromkeys(student.teacher for student in given):
        known = [layer for student in given if student.teacher != teacher for layer in _layers(student)]
        try:
            calibration = calibrate([e for e, _, _ in known], [n for _, n, _ in known], [error for *_, error in known])
        except InputError:
            # Too few, or all alike.
            continue
        own = [layer for student in given if student.teacher == teacher for layer in _layers(student)]
        ratios += [error / calibration.error(ess, size) for ess, size, error in own]
        for loss in WANTED:
            for ess in dict.fromkeys(layer[0] for layer in own):
                fitting = [layer for layer in own if layer[0] == ess and calibration.error(ess, layer[1]) <= loss]
                wanted_met += [error <= loss for _, _, error in sorted(fitting, key=_size)[:1]]
    if not ratios:
        return {}, []
    within = float(np.mean(np.array(ratios) <= 1))
    met = float(np.mean(wanted_met)) if wanted_met else math.nan
    figures: dict[str, Figure] = {
        "held_out_layers": float(len(ratios)),
        "held_out_within_prediction": within,
        "held_out_error_over_prediction": float(np.median(ratios)),
        "held_out_named": float(len(wanted_met)),
        "held_out_named_within_wanted": met,
    }
    statement = (
        f"Calibrated with the students of all other teachers, {within:.0%} of {len(ratios)} layers of held-out "
        f"teachers' students came within the predicted error (asked for: 90%). Of {len(wanted_met)} sizes that were "
        f"named in this way for losses of {', '.join(map(str, WANTED))}, among those that were trained, {met:.0%} came "
        "within the loss."
    )
    return figures, [statement]


def _layers(student: DistilledStudent) -> list[tuple[float, int, float]]:
    """ESS of the teacher, size and error of each layer."""
    return list(zip(student.teacher_ess, student.sizes, student.errors, strict=True))


def _size(layer: tuple[float, int, float]) -> int:
    return layer[1]


def _recommendations(students: Sequence[DistilledStudent]) -> tuple[dict[str, Figure], list[str]]:
    """Students of the sizes that the constants of the package named when they were made."""
    figures: dict[str, Figure] = {}
    statements: list[str] = []
    for wanted in sorted({student.wanted for student in students if not math.isnan(student.wanted)}):
        named = [student for student in students if student.wanted == wanted]
        error, predicted, size = (
            np.array(part, np.float64).ravel()
            for part in (
                [student.errors for student in named],
                [student.predicted for student in named],
                [student.sizes for student in named],
            )
        )
        name = f"wanted_{wanted:g}".replace(".", "_")
        figures |= {
            f"{name}_within_prediction": float(np.mean(error <= predicted)),
            f"{name}_within_wanted": float(np.mean(error <= wanted)),
            f"{name}_error": float(error.mean()),
            f"{name}_largest_error": float(error.max()),
            f"{name}_size": float(size.mean()),
        }
        statements.append(
            f"Recommended for a loss of {wanted:g}: n = {size.min():.0f} to {size.max():.0f}, mean {size.mean():.1f}. "
            f"{int((error <= predicted).sum())} of {len(error)} layers came within the predicted error and "
            f"{int((error <= wanted).sum())} within the wanted one; mean {error.mean():.3f}, largest {error.max():.3f}."
        )
    return figures, statements


def _frontier(students: Sequence[DistilledStudent], alone: Sequence[LoneModel]) -> tuple[dict[str, Figure], list[str]]:
    points: dict[str, list[tuple[float, float]]] = {}
    for model in alone:
        points.setdefault(f"alone_n{model.key_size}", []).append((model.bytes, model.accuracy))
    for student in students:
        given = math.isnan(student.wanted)
        name = f"distilled_n{student.sizes[0]}" if given else f"recommended_{student.wanted:g}".replace(".", "_")
        points.setdefault(name, []).append((student.bytes, student.accuracy))
    figures: dict[str, Figure] = {}
    told: list[str] = []
    for name, values in points.items():
        size, accuracy = (float(value) for value in np.mean(values, axis=0))
        spread = float(np.std([value[1] for value in values]))
        figures |= {f"frontier_{name}_bytes": size, f"frontier_{name}_accuracy": accuracy}
        told.append(f"{name.replace('_', ' ')} {size:,.0f} bytes, {accuracy:.2f} ± {spread:.2f} ({len(values)})")
    return figures, [f"Accuracy by bytes of state, mean ± standard deviation over models: {'; '.join(told)}."]
