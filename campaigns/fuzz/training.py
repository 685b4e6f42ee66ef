"""Random calls of the training functions: distances, students, and steps of the loops."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from oracles import exact
from torch import Tensor

import statesize as ss
from campaigns.fuzz import answers
from campaigns.fuzz.arguments import number, real, whole
from campaigns.fuzz.call import Call, Refusal, expected_refusal, moderate
from campaigns.fuzz.hostile import Source
from campaigns.fuzz.operators import random_case
from statesize.lab import training
from statesize.lab.mixers import LanguageModel, ModelConfig
from statesize.lab.tasks import Compression

_TASK = Compression(tokens=2, symbols=3, held_out_sequences=3)
_ONE_STEP = training.TrainingConfig(steps=1, batch_size=2, identity_weight=0.1)


def _near(found: Tensor, right: np.ndarray, dtype: torch.dtype) -> list[str]:
    given = exact.wide(found)
    slack = 1e3 * torch.finfo(dtype).eps
    off = ~(np.abs(given - right) <= slack * (1 + np.abs(right)))
    return [f"{given[off][0]} for {right[off][0]}"] if given.shape != right.shape or off.any() else []


def distance_call(source: Source) -> Call:
    """`hidden_error` and `logit_divergence` of tensors that need not fit together."""
    name = source.chance.choice(("hidden_error", "logit_divergence"))
    least = 2 if name == "hidden_error" else 1
    shape = (*source.batch(), *(source.whole(1, 6) for _ in range(source.chance.choice((0, 1, 2, 2)))))
    teacher = source.tensor(*shape)
    if source.maybe(0.7):
        student = source.tensor(*shape)
    else:
        student = source.no_number() if source.maybe(0.5) else source.tensor(*shape[1:], 3)
    fits = isinstance(student, Tensor) and student.shape == teacher.shape and teacher.ndim >= least
    tensors = [part for part in (teacher, student) if isinstance(part, Tensor)]
    good = all(part.is_floating_point() and part.layout == torch.strided and not part.is_meta for part in tensors)
    wrong = not fits or not good or 0 in teacher.shape[-least:]
    function = getattr(training, name)

    def check(found: Tensor) -> list[str]:
        if source.extreme:
            return [] if not bool(torch.isnan(found).any()) else [f"{found}"]
        t, s = exact.wide(teacher), exact.wide(student)
        dtype = min((teacher.dtype, student.dtype), key=lambda kind: -torch.finfo(kind).eps)
        if dtype in {torch.float16, torch.bfloat16}:
            return [] if answers.finite(found) else [f"{found}"]
        if name == "hidden_error":
            size = np.sqrt((t**2).sum((-2, -1)))
            if (size < 1e-15).any():
                return []
            return _near(found, np.sqrt(((t - s) ** 2).sum((-2, -1))) / size, dtype)
        if max(np.abs(t).max(initial=0), np.abs(s).max(initial=0)) > 100:
            return []
        logs = [part - np.log(np.exp(part).sum(-1, keepdims=True)) for part in (t, s)]
        return _near(found, (np.exp(logs[0]) * (logs[0] - logs[1])).sum(-1), dtype)

    refusal = expected_refusal(source, wrong=wrong)
    if refusal == "never" and any(bool((part.detach().abs() > 1e15).any()) for part in tensors):
        refusal = "maybe"  # squares of single precision overflow
    about = f"{name} {teacher.shape} {teacher.dtype} {getattr(student, 'shape', student)!r:.60}"
    return Call(lambda: function(teacher, student), check, refusal, ("teacher", "student"), about)


def operator_distance_call(source: Source) -> Call:
    """`operator_error`, `identity_distance` and `utilisation_distance`."""
    name = source.chance.choice(("operator_error", "identity_distance", "utilisation_distance"))
    case = random_case(source, source.chance.choice((None, "Recurrence", "delta_rule")))
    value = source.no_number()
    target = source.chance.choice((0.0, 0.5, 1.0)) if source.maybe(0.7) else value
    other = value if source.maybe(0.2) else None
    share = source.chance.choice((None, 0.9, -1.0))

    def student(teacher: ss.Operator) -> Any:
        if other is not None:
            return other
        if share is None or not np.abs(case.T).max(initial=0) <= exact.LARGEST:
            return teacher
        return ss.Dense(torch.from_numpy((case.T * share).astype(np.float64)).tril())

    def run() -> Tensor:
        operator = case.make()
        if name == "operator_error":
            return training.operator_error(operator, student(operator))
        if name == "identity_distance":
            return training.identity_distance(operator if other is None else other)
        return training.utilisation_distance(operator if other is None else other, target, [1])

    def check(found: Tensor) -> list[str]:
        if not answers.finite(found):
            return [f"{found}"]
        if name == "utilisation_distance":
            return [] if 0 <= float(found.detach()) <= 1 + 1e-9 else [f"{found}"]
        if name == "identity_distance" or source.extreme or not moderate(case) or not case.T.size:
            return [] if bool((found >= 0).all()) else [f"{found}"]
        top = np.abs(case.T).max((-2, -1))
        if (top < 1e-6).any() or case.make().dtype in {torch.float16, torch.bfloat16}:
            return []
        right = np.full(case.T.shape[:-2], abs(1 - share) if share else 0.0)
        off = ~(np.abs(exact.wide(found) - right) <= 1e-3)
        return [f"error {found} for {right}"] if off.any() else []

    good = other is None
    good &= name != "utilisation_distance" or (real(target) and 0 <= number(target) <= 1)
    refusal: Refusal = "always" if case.wrong or not good else "maybe"
    names = (*case.names, "teacher", "student", "recurrence", "operator", "target", "T")
    return Call(run, check, refusal, names, f"{name} L={case.length} {target!r} {other!r:.40}")


@dataclass
class _Models:
    """Fresh models of one call: training changes them."""

    teacher: Any
    student: Any
    task: Any
    config: Any
    wrong: bool

    @classmethod
    def random(cls, source: Source) -> _Models:
        pattern = source.chance.choice(("gla", "la", "sa", "gla,sa"))
        shape = ModelConfig(pattern, 9, width=8, heads=2, layers=2, key_size=4, convolution_size=2)
        made = [LanguageModel(shape, torch.Generator().manual_seed(seed)) for seed in range(2)]
        parts: list[Any] = [*made, _TASK, _ONE_STEP]
        place = source.chance.choice((None, None, 0, 1, 2, 3))
        if place is not None:
            parts[place] = source.no_number()
        return cls(*parts, place is not None)


def loop_call(source: Source) -> Call:
    """Everything that runs a model on a task: one argument may be anything."""
    given = _Models.random(source)
    value, size = source.no_number(), source.no_number() if source.maybe(0.5) else 2
    sized = whole(size, 1, 1000)
    model, student, task, config = given.teacher, given.student, given.task, given.config
    fits = isinstance(model, LanguageModel)
    pair = fits and isinstance(student, LanguageModel)
    tasked, configured = task is _TASK, config is _ONE_STEP
    objective = value if source.maybe(0.3) else training.Objective()
    kinds: dict[str, tuple[Callable[[], Any], bool]] = {
        "evaluate": (lambda: training.evaluate(model, task, size), fits and tasked and sized),
        "discrepancy": (
            lambda: training.discrepancy(model, student, task, size),
            pair and tasked and sized,
        ),
        "train in memory": (lambda: list(training.train(model, task, config)), fits and tasked and configured),
        "distil": (
            lambda: list(training.distil(model, student, task, config, objective)),
            pair and tasked and configured and isinstance(objective, training.Objective),
        ),
        "train": (lambda: _train(model, task, config, value), False),
        "train well": (lambda: _train(model, task, config, "here"), fits and tasked and configured),
        "student_of": (
            lambda: training.student_of(model, size, torch.Generator().manual_seed(0)),
            fits and type(size) is int and 1 <= size < 100,
        ),
        "student_of by": (lambda: training.student_of(model, 2, 3 if value is None else value), False),
        "mixer_calls": (lambda: _calls(model), fits),
    }
    kind = source.chance.choice(list(kinds))
    run, good = kinds[kind]
    refusal: Refusal = "maybe" if good or kind in {"train", "student_of"} else "always"
    if good and not (kind.startswith("train") and model.config.mixer == "sa"):
        # The term of the loop's settings needs a recurrence.
        refusal = "never"
    names = (
        "model", "teacher", "student", "task", "config", "objective", "batch_size", "key_size", "folder",
        "generator", "target", "mixers", "mixer", "input_ids",
    )  # fmt: skip

    def check(found: Any) -> list[str]:
        if isinstance(found, dict):
            return [] if all(math.isfinite(part) for part in found.values()) else [f"{found}"]
        return [] if found is not None else ["None"]

    about = f"{kind} {type(model).__name__} {type(student).__name__} {task!r:.30} {size!r:.30} {value!r:.40}"
    return Call(run, check, refusal, names, about)


def _train(model: Any, task: Any, config: Any, folder: Any) -> Any:
    # Paths of its own only: nothing is written where the process runs.
    with tempfile.TemporaryDirectory() as place:
        inside = Path(place) / folder if isinstance(folder, str) and folder and "\0" not in folder else folder
        return list(training.train(model, task, config, folder=training.RunFolder(inside)))


def _calls(model: Any) -> int:
    with training.mixer_calls(model) as calls:
        if isinstance(model, LanguageModel):
            model(torch.zeros(1, 3, dtype=torch.long))
        return len(calls)
