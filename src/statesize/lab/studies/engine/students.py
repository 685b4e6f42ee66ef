"""The students of a trained model: each learns the operators of its teacher, then its predictions."""

from __future__ import annotations

import dataclasses
import math
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from statesize.adapters.capture import capture
from statesize.check import require_count, require_kind, require_real
from statesize.lab.mixers.config import ModelConfig
from statesize.lab.mixers.model import LanguageModel
from statesize.lab.studies.engine.predictions import least_error, predicted_error, smallest_size
from statesize.lab.tasks.task import Task
from statesize.lab.training.config import TrainingConfig
from statesize.lab.training.distillation import Objective, discrepancy, distil, student_of
from statesize.measurement.measurement import measure

# Students' weights and batches are drawn apart from those of their teachers, which have seeds of a few digits.
_OPERATORS_SEED, _PREDICTIONS_SEED = 10**9, 2 * 10**9


@dataclass(frozen=True)
class Distillation:
    """The students of one teacher.

    Attributes:
        key_sizes: n of students that have the same in each layer.
        losses: Wanted operator errors, for each of which a student has the smallest sizes that are predicted to do.
        steps: Steps of learning the operators, and again of learning hidden states and predictions.
        batch_size: Sequences of a step.
        rate: Learning rate for the operators; half of it for the rest.
        mixer: Of the students; None for that of their teacher.

    Raises:
        InputError: A value is out of range.
    """

    key_sizes: tuple[int, ...] = (2, 4, 8)
    losses: tuple[float, ...] = ()
    steps: int = 400
    batch_size: int = 16
    rate: float = 1e-2
    mixer: str | None = None

    def __post_init__(self) -> None:
        for name in ("key_sizes", "losses"):
            require_kind(name, getattr(self, name), (list, tuple), "a list of positive numbers")
            object.__setattr__(self, name, tuple(getattr(self, name)))
        for name, counts in (("key_sizes", self.key_sizes), ("steps", [self.steps]), ("batch_size", [self.batch_size])):
            for count in counts:
                require_count(name, count, plain=True)
        for name, numbers in (("losses", self.losses), ("rate", [self.rate])):
            for number in numbers:
                require_real(name, number, above=0, plain=True)
        if self.mixer is not None:
            ModelConfig(self.mixer)  # refuses one that does not exist

    def to_dict(self) -> dict[str, Any]:
        """The plan as JSON values; what came later is left out where it is not used, so that runs keep their keys."""
        fields = dataclasses.asdict(self)
        return {name: value for name, value in fields.items() if name != "mixer" or value is not None}


@dataclass(frozen=True, eq=False)
class Student:
    """A trained student."""

    model: LanguageModel
    wanted: float  # the loss for which its sizes were recommended; NaN for sizes of the plan
    divergence: float  # from the teacher's predictions at the end, in nats
    # For each layer its "size"; the "error" of its operators on held-out data once these were learned; the "predicted"
    # error of that size; and the "bound" of all recurrences of that size on the sequences of the teacher's measurement.
    layers: tuple[dict[str, float], ...]


def students(
    teacher: LanguageModel, task: Task, training: TrainingConfig, sequences: int, plan: Distillation
) -> Iterator[Student]:
    """Trains the students of a trained teacher, which is measured on so many held-out sequences."""
    # The training's seed, warm-up, weight decay, clip and device are the students' too.
    input_ids = next(iter(task.held_out(sequences)))[0].to(next(teacher.parameters()).device)
    operators = [captured.operator for captured in capture(teacher, input_ids)]
    measured = [measure(operator, outputs=("entropy",), entropy_accuracy=2e-4) for operator in operators]
    uniform = [(math.nan, [size] * len(measured)) for size in plan.key_sizes]
    named = [(loss, [smallest_size(layer, loss) for layer in measured]) for loss in plan.losses]
    for wanted, sizes in [*uniform, *named]:
        student = student_of(teacher, sizes, torch.Generator().manual_seed(_OPERATORS_SEED + training.seed), plan.mixer)
        config = _config(training, plan, _OPERATORS_SEED, plan.rate)
        deque(distil(teacher, student, task, config, Objective(hidden=0, logits=0)), maxlen=0)
        errors = discrepancy(teacher, student, task, plan.batch_size).operators
        config = _config(training, plan, _PREDICTIONS_SEED, plan.rate / 2)
        deque(distil(teacher, student, task, config, Objective(operators=0)), maxlen=0)
        divergence = discrepancy(teacher, student, task, plan.batch_size).divergence
        layers = tuple(
            {
                "size": float(size),
                "error": error,
                "predicted": predicted_error(layer, size),
                "bound": float(least_error(operator, size).mean()),
            }
            for size, error, layer, operator in zip(sizes, errors, measured, operators, strict=True)
        )
        yield Student(student, wanted, divergence, layers)


def _config(training: TrainingConfig, plan: Distillation, seed: int, rate: float) -> TrainingConfig:
    return TrainingConfig(
        steps=plan.steps,
        batch_size=plan.batch_size,
        rate=rate,
        warm_up=training.warm_up,
        weight_decay=training.weight_decay,
        clip=training.clip,
        seed=seed + training.seed,
        device=training.device,
    )
