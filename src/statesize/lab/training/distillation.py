"""Distillation: a student, a teacher with less state, learns what the teacher's layers do."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from statesize.check import all_finite, require_count
from statesize.errors import InputError
from statesize.lab.mixers.base import Mixer
from statesize.lab.mixers.chunk import MINIMUM_LOG_DECAY, mix_chunked
from statesize.lab.mixers.model import LanguageModel
from statesize.lab.tasks.base import IGNORED, Task
from statesize.lab.training.config import TrainingConfig
from statesize.lab.training.folder import StepRecord
from statesize.lab.training.loop import DivergenceError, evaluating, train
from statesize.operators import Operator, Recurrence

LOSSES = ("operators", "hidden", "logits")


@dataclass(frozen=True)
class Discrepancy:
    """Distances of a student from its teacher on held-out data.

    Attributes:
        operators: `operator_error` of each layer, the mean over sequences and units.
        divergence: That of predictions in nats, the mean over scored positions.
    """

    operators: tuple[float, ...]
    divergence: float


def distil(
    teacher: LanguageModel,
    student: LanguageModel,
    task: Task,
    config: TrainingConfig,
    losses: Sequence[str] = LOSSES,
) -> Iterator[StepRecord]:
    """Trains a student on what its teacher computes; targets of the task only say which positions are scored.

    The losses are those of Bick et al. 2024, who take them in turn: "operators", `operator_error` at the teacher's
    layer inputs, the mean over layers, sequences and units; "hidden", ‖X − X′‖_F / ‖X‖_F of what each layer adds to
    these inputs, the mean over layers and sequences; "logits", Σ_v p_v ln(p_v / p′_v) at the scored positions (Hinton
    et al. 2015), the student being run on its own.

    Args:
        teacher: Is not changed.
        student: Trained in place while the iterator is read; of the same layers, width and heads.
        task: Gives the batches.
        config: Settings; those on evaluations, checkpoints and regularisation are not used.
        losses: Those whose sum is learned.

    Returns:
        The record of each step, after it.

    Raises:
        InputError: The device is missing, or the task has more tokens than the models.
    """

    def loss(*batch: Tensor) -> Tensor:
        distances = _distances(teacher, student, batch, losses).values()
        means = (torch.stack([part.sum() / max(part.numel(), 1) for part in parts]).mean() for parts in distances)
        return torch.stack(list(means)).sum()

    return train(student, task, config, loss)


@torch.no_grad()
def discrepancy(teacher: LanguageModel, student: LanguageModel, task: Task, batch_size: int) -> Discrepancy:
    """Compares a student with its teacher on the held-out data of a task, of which there must be some, in batches."""
    batch_size = require_count("batch_size", batch_size)
    with evaluating(student):
        batches = [_distances(teacher, student, batch, ("operators", "logits")) for batch in task.held_out(batch_size)]
    if not sum(distances["logits"][0].numel() for distances in batches):
        raise InputError("the task's held-out data have no target; at least one is needed to compare predictions")
    operators, logits = (
        tuple(float(torch.cat(parts).mean()) for parts in zip(*(batch[name] for batch in batches), strict=True))
        for name in batches[0]
    )
    return Discrepancy(operators, logits[0])


def _distances(
    teacher: LanguageModel, student: LanguageModel, batch: tuple[Tensor, ...], losses: Sequence[str]
) -> dict[str, list[Tensor]]:
    """Operators by layer, (S, unit), hidden states by layer, (S,), logits of scored positions, (N,)."""
    device = next(student.parameters()).device
    input_ids, targets = (tensor.to(device) for tensor in batch)
    traces, expected = _traced(teacher, input_ids)
    distances: dict[str, list[Tensor]] = {name: [] for name in losses}
    try:
        for theirs, ours, (inputs, outputs) in zip(teacher.blocks, student.blocks, traces, strict=True):
            if "operators" in losses:
                with torch.no_grad():
                    target = theirs.mixer.operator(theirs.mixer_norm(inputs))
                distances["operators"].append(operator_error(target, ours.mixer.operator(ours.mixer_norm(inputs))))
            if "hidden" in losses:
                added, wanted = ours(inputs) - inputs, outputs - inputs
                distances["hidden"].append(_relative(wanted - added, wanted))
        if "logits" in losses:
            scored = targets != IGNORED
            known, predicted = (part[scored].log_softmax(-1) for part in (expected, student(input_ids)))
            divergence = functional.kl_div(predicted, known, reduction="none", log_target=True)
            distances["logits"].append(divergence.sum(-1))
    except InputError as error:
        # Weights that are still finite can make a layer that is not.
        raise DivergenceError(f"the student is not finite ({error}). Try a lower learning rate") from error
    if not all(all_finite(part) for parts in distances.values() for part in parts):
        raise DivergenceError("the student is too far from its teacher to be compared. Try a lower learning rate")
    return distances


def operator_error(teacher: Operator, student: Operator) -> Tensor:
    """‖T − T′‖_F / ‖T‖_F of each pair of operators; gradients flow to the tensors of the student.

    Recurrences whose state is real and diagonal, with decays of at least e⁻⁴, take the chunk-parallel form; others are
    stepped. "Matrix orientation" of Bick et al., "Transformers to SSMs: Distilling Quadratic Knowledge to Subquadratic
    Models", 2024.

    Args:
        teacher: T at some input.
        student: T′ at the same input, of the same length and batch shape.

    Returns:
        Batch shape; where T is 0, the norm of T′ in units of the smallest number of its dtype.

    Example:
        >>> ones = torch.ones(4, 1)
        >>> operator_error(Recurrence(ones, ones, ones), Recurrence(ones, ones, 0.9 * ones))
        tensor(0.1000)
    """
    with torch.no_grad():
        target = _matrix(teacher)
    return _relative(target - _matrix(student), target)


def _relative(difference: Tensor, whole: Tensor) -> Tensor:
    """The norm of a difference (..., L, M) over that of the whole, (...)."""
    # The root of 0 has no derivative. Teacher and student may have different dtypes.
    smallest = max(torch.finfo(part.dtype).tiny for part in (difference, whole))
    squares = (part.square().sum((-2, -1)).clamp(min=smallest).sqrt() for part in (difference, whole))
    return next(squares) / next(squares)


def _matrix(operator: Operator) -> Tensor:
    """T, (..., L, L), with gradients where they are needed."""
    units = torch.eye(operator.length, dtype=operator.dtype, device=operator.device)
    if isinstance(operator, Recurrence) and _fits_chunks(operator):
        matrix = mix_chunked(operator.C, operator.B, units, operator.A.log())
        return matrix if operator.D is None else matrix + units * operator.D[..., None, :]
    if not torch.is_grad_enabled() and not isinstance(operator, Recurrence):
        return operator.dense()
    return operator.apply(units.expand(*operator.batch_shape, *units.shape))


def _fits_chunks(recurrence: Recurrence) -> bool:
    """Tell whether the chunk-parallel form gives the same: real, diagonal, and no decay too strong for it."""
    if recurrence.is_complex or recurrence.A.dim() != recurrence.B.dim() or not recurrence.A.numel():
        return False
    smallest = recurrence.A.detach().amin()
    return bool(smallest > 0) and smallest.log().item() >= MINIMUM_LOG_DECAY


@torch.no_grad()
def _traced(teacher: LanguageModel, input_ids: Tensor) -> tuple[list[tuple[Tensor, Tensor]], Tensor]:
    """Inputs and outputs of each layer, and the logits, without dropout."""
    calls: list[tuple[Tensor, Tensor]] = []

    def store(_: nn.Module, inputs: tuple[Tensor, ...], outputs: Tensor) -> None:
        calls.append((inputs[0], outputs))

    with evaluating(teacher), ExitStack() as hooks:
        for block in teacher.blocks:
            hooks.callback(block.register_forward_hook(store).remove)
        return calls, teacher(input_ids)


def student_of(teacher: LanguageModel, key_size: int, generator: torch.Generator | None = None) -> LanguageModel:
    """A model that begins with all weights of the teacher that have the same name and shape in it.

    Embedding, norms, MLPs and output projections are the teacher's, and so are the values of mixers of this package.
    Queries, keys and gates start anew where their shapes depend on the size of the state, and the size is another one.
    With the size of its teacher, a student is a copy of the teacher.

    Args:
        teacher: Is not changed.
        key_size: n of all layers.
        generator: Source of what starts anew; None draws from torch's default generator.

    Returns:
        A model on the teacher's device, in its dtype.

    Example:
        >>> from statesize.lab.mixers import ModelConfig
        >>> teacher = LanguageModel(ModelConfig(width=8, heads=2, layers=2, key_size=16))
        >>> student = student_of(teacher, 2)
        >>> [block.mixer.key_size for block in student.blocks]
        [2, 2]
    """
    student = LanguageModel(dataclasses.replace(teacher.config, key_size=key_size), generator)
    weights, width = teacher.state_dict(), teacher.config.width
    with torch.no_grad():
        for name, tensor in student.state_dict().items():
            if name in weights and tensor.shape == weights[name].shape:
                tensor.copy_(weights[name])
        for theirs, ours in zip(teacher.blocks, student.blocks, strict=True):
            if isinstance(ours.mixer, Mixer):
                # The value channels come last in the projection and in its convolution; they have no state.
                for part in ("projection.weight", "convolution.weight"):
                    ours.mixer.get_parameter(part)[-width:].copy_(theirs.mixer.get_parameter(part)[-width:])
    weight = next(teacher.parameters())
    return student.to(weight.device, weight.dtype)
