"""The students of a trained model, how far off they are, and what is known of that before: a bound and a prediction."""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

from statesize.check import require_count, require_kind, require_real
from statesize.lab.mixers.model import LanguageModel
from statesize.lab.tasks.task import StudyTask
from statesize.lab.training.config import TrainingConfig
from statesize.lab.training.distillation import Objective, discrepancy, distil, student_of
from statesize.measurement.measurement import Measurement, hankel_singular_values, measure
from statesize.models.capture import capture
from statesize.operators import Operator

# Students' weights and batches are drawn apart from those of their teachers, which have seeds of a few digits.
_OPERATORS_SEED, _PREDICTIONS_SEED = 10**9, 2 * 10**9
# Columns of T in memory at once while its norm is computed.
_BLOCK = 256


@dataclass(frozen=True)
class Distillation:
    """The students of one teacher.

    Attributes:
        key_sizes: n of its students, each the same in all layers.
        steps: Steps of learning the operators, and again of learning hidden states and predictions.
        batch_size: Sequences of a step.
        rate: Learning rate for the operators; half of it for the rest.

    Raises:
        InputError: A value is out of range.
    """

    key_sizes: tuple[int, ...] = (2, 4, 8)
    steps: int = 400
    batch_size: int = 16
    rate: float = 1e-2

    def __post_init__(self) -> None:
        require_kind("key_sizes", self.key_sizes, (list, tuple), "a list of positive numbers")
        object.__setattr__(self, "key_sizes", tuple(self.key_sizes))
        for name, counts in (("key_sizes", self.key_sizes), ("steps", [self.steps]), ("batch_size", [self.batch_size])):
            for count in counts:
                require_count(name, count, plain=True)
        require_real("rate", self.rate, above=0, plain=True)

    def to_dict(self) -> dict[str, Any]:
        """The plan as JSON values."""
        # Keys of runs on record have an empty list of losses.
        return {"losses": ()} | dataclasses.asdict(self)


@dataclass(frozen=True, eq=False)
class Student:
    """A trained student."""

    model: LanguageModel
    divergence: float  # from the teacher's predictions at the end, in nats
    # For each layer its "size"; the "error" of its operators on held-out data once these were learned; the "predicted"
    # error of that size; and the "bound" of all recurrences of that size on the sequences of the teacher's measurement.
    layers: tuple[dict[str, float], ...]


def students(
    teacher: LanguageModel, task: StudyTask, training: TrainingConfig, sequences: int, plan: Distillation
) -> Iterator[Student]:
    """Trains the students of a trained teacher, which is measured on so many held-out sequences."""
    # The training's seed, warm-up, weight decay, clip and device are the students' too.
    input_ids = next(iter(task.held_out(sequences)))[0].to(next(teacher.parameters()).device)
    operators = [captured.operator for captured in capture(teacher, input_ids)]
    measured = [measure(operator, outputs=("entropy",)) for operator in operators]
    for size in plan.key_sizes:
        generator = torch.Generator().manual_seed(_OPERATORS_SEED + training.seed)
        student = student_of(teacher, size, generator)
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
            for error, layer, operator in zip(errors, measured, operators, strict=True)
        )
        yield Student(student, divergence, layers)


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


@dataclass(frozen=True)
class Calibration:
    """An upper bound of the error of most students: error = factor · ESS^ess_power · n^size_power.

    The error is ‖T − T′‖_F / ‖T‖_F of a layer, the mean over sequences and heads; ESS is the layer's average
    entropy-ESS and n the size of the student's state.

    Attributes:
        factor: Set such that 90 % of the students stay below.
        ess_power: Power of the ESS.
        size_power: Power of the size; negative.
    """

    factor: float
    ess_power: float
    size_power: float

    def error(self, ess: float, state_size: int) -> float:
        """The predicted bound of the error of students of a size.

        Args:
            ess: Average entropy-ESS of the layer.
            state_size: n, at least 1.

        Returns:
            The error, at most 1, which is that of T′ = 0.

        Example:
            >>> Calibration(0.2, 1.0, -0.5).error(2.0, 4)
            0.2
        """
        return min(1.0, self.factor * ess**self.ess_power * state_size**self.size_power)


GLA_STUDENTS = Calibration(factor=0.17, ess_power=1.19, size_power=-0.60)
"""From 72 layers of students with 2, 4 and 8 states of gated linear attention with 16 states on associative recall."""


def predicted_error(measured: Measurement, state_size: int) -> float:
    """The predicted bound of the operator error of a student of some size, by the measured entropy of its teacher."""
    return GLA_STUDENTS.error(float(cast("Tensor", measured.entropy).detach().double().mean()), state_size)


@torch.no_grad()
def least_error(operator: Operator, state_size: int) -> Tensor:
    """A lower bound of ‖T − T′‖_F / ‖T‖_F over all recurrences T′ with a state of some size.

    The block H′_i of T′ has at most rank n, so ‖T − T′‖² ≥ ‖H_i − H′_i‖² ≥ Σ_{m>n} σ_m(H_i)² (Eckart and Young 1936).
    The bound is the largest over i. A student, which is one function of all inputs, may have a much larger error.

    Args:
        operator: T at some input.
        state_size: n.

    Returns:
        Batch shape, float64.

    Example:
        >>> from statesize.operators import Convolution
        >>> delay = Convolution(torch.tensor([0.0, 0.0, 1.0]), length=4)
        >>> least_error(delay, 1)
        tensor(0.7071, dtype=torch.float64)
    """
    sigma = hankel_singular_values(operator)
    exact = operator.to(dtype=torch.float64)
    dropped = sigma[..., min(state_size, sigma.shape[-1]) :].square().sum(-1)
    starts = range(0, exact.length, _BLOCK)
    columns = (exact.columns(first, min(first + _BLOCK, exact.length)) for first in starts)
    size = torch.stack([part.square().sum((-2, -1)) for part in columns]).sum(0)
    return (dropped.amax(-1) / size.clamp(min=torch.finfo(size.dtype).tiny)).sqrt()
