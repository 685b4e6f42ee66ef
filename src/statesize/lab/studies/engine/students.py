"""The students of a trained model, how far off they are, and the least error that their size allows."""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from statesize.check import require_count
from statesize.lab.mixers.model import LanguageModel
from statesize.lab.tasks.base import Task
from statesize.lab.training.config import TrainingConfig
from statesize.lab.training.distillation import discrepancy, distil, student_of
from statesize.metrics import hankel_singular_values
from statesize.models.capture import capture
from statesize.operators import Operator

# Students' weights and batches are drawn apart from those of their teachers, which have seeds of a few digits.
_OPERATORS_SEED, _PREDICTIONS_SEED = 10**9, 2 * 10**9


@dataclass(frozen=True)
class Distillation:
    """The students of one teacher.

    Attributes:
        key_sizes: n of its students, each the same in all layers.
        steps: Steps of learning the operators, and again of learning hidden states and predictions.
        batch_size: Sequences of a step.
        rate: Learning rate for the operators; half of it for the rest.
    """

    key_sizes: tuple[int, ...] = (2, 4, 8)
    steps: int = 400
    batch_size: int = 16
    rate: float = 1e-2

    def __post_init__(self) -> None:
        # Those of training are checked where it begins.
        object.__setattr__(self, "key_sizes", tuple(require_count("key_sizes", n, plain=True) for n in self.key_sizes))


def students(
    teacher: LanguageModel, task: Task, training: TrainingConfig, sequences: int, plan: Distillation
) -> Iterator[tuple[LanguageModel, dict[str, float]]]:
    """Trains the students of a trained teacher, which is measured on so many held-out sequences, and their columns."""
    # The training's seed, warm-up, weight decay, clip and device are the students' too.
    input_ids = next(iter(task.held_out(sequences)))[0].to(next(teacher.parameters()).device)
    operators = [captured.operator for captured in capture(teacher, input_ids)]

    def learn(student: LanguageModel, seed: int, rate: float, *losses: str) -> None:
        kept = {"identity_weight": 0.0, "seed": seed + training.seed, "rate": rate}
        config = dataclasses.replace(training, steps=plan.steps, batch_size=plan.batch_size, **kept)
        deque(distil(teacher, student, task, config, losses), maxlen=0)

    for size in plan.key_sizes:
        student = student_of(teacher, size, torch.Generator().manual_seed(_OPERATORS_SEED + training.seed))
        learn(student, _OPERATORS_SEED, plan.rate, "operators")
        errors = discrepancy(teacher, student, task, plan.batch_size).operators
        learn(student, _PREDICTIONS_SEED, plan.rate / 2, "hidden", "logits")
        columns = {"student_divergence": discrepancy(teacher, student, task, plan.batch_size).divergence}
        for layer, (error, operator) in enumerate(zip(errors, operators, strict=True)):
            columns[f"student_size_layer_{layer}"] = float(size)
            columns[f"student_error_layer_{layer}"] = error
            columns[f"student_bound_layer_{layer}"] = float(least_error(operator, size).mean())
        yield student, columns


@torch.no_grad()
def least_error(operator: Operator, state_size: int) -> Tensor:
    """A lower bound of ‖T − T′‖_F / ‖T‖_F over all recurrences T′ with a state of some size, batch shape, float64."""
    # The block H′_i of T′ has at most rank n, so ‖T − T′‖² ≥ ‖H_i − H′_i‖² ≥ Σ_{m>n} σ_m(H_i)² (Eckart and Young 1936).
    # The bound is the largest over i. A student, which is one function of all inputs, may have a much larger error.
    sigma = hankel_singular_values(operator)
    dropped = sigma[..., min(state_size, sigma.shape[-1]) :].square().sum(-1)
    size = operator.to(dtype=torch.float64).dense().square().sum((-2, -1))
    return (dropped.amax(-1) / size.clamp(min=torch.finfo(size.dtype).tiny)).sqrt()
