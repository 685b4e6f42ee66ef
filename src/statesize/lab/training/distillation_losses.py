"""How far a student is from its teacher: in its operators, in its hidden states and in its logits."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from statesize.check import all_finite, require_finite, require_floating, require_kind
from statesize.errors import InputError
from statesize.lab.mixers.chunk import MINIMUM_LOG_DECAY, mix_chunked
from statesize.operators import Operator, Recurrence


def operator_error(teacher: Operator, student: Operator) -> Tensor:
    """‖T − T′‖_F / ‖T‖_F of each pair of operators; gradients flow to the tensors of the student.

    Recurrences whose state is real and diagonal, with decays of at least e⁻⁴, take the chunk-parallel form; others are
    stepped.

    "Matrix orientation" of Bick et al., "Transformers to SSMs: Distilling Quadratic Knowledge to Subquadratic Models",
    2024.

    Args:
        teacher: T at some input.
        student: T′ at the same input, of the same length and batch shape.

    Returns:
        Batch shape; where T is 0, the norm of T′ in units of the smallest number of its dtype.

    Raises:
        InputError: The operators differ in length or batch shape, overflow when squared, or are none.

    Example:
        >>> ones = torch.ones(4, 1)
        >>> operator_error(Recurrence(ones, ones, ones), Recurrence(ones, ones, 0.9 * ones))
        tensor(0.1000)
    """
    for name, operator in (("teacher", teacher), ("student", student)):
        require_kind(name, operator, Operator, "a statesize Operator")
    if (teacher.length, teacher.batch_shape) != (student.length, student.batch_shape):
        raise InputError(
            f"student must have the length {teacher.length} and batch shape {tuple(teacher.batch_shape)} of teacher, "
            f"got {student.length} and {tuple(student.batch_shape)}. Give both at the same input, unit by unit."
        )
    with torch.no_grad():
        target = _matrix(teacher)
    return _relative(*(part.square().sum((-2, -1)) for part in (target - _matrix(student), target)))


def hidden_error(teacher: Tensor, student: Tensor) -> Tensor:
    """‖X − X′‖_F / ‖X‖_F of hidden states (..., L, d) of each sequence, "hidden-state alignment" of Bick et al. 2024.

    Returns:
        (...).

    Example:
        >>> hidden_error(torch.full((2, 3, 4), 2.0), torch.ones(2, 3, 4))
        tensor([0.5000, 0.5000])
    """
    _require_alike(teacher, student, 2, "(..., L, d)")
    return _relative((teacher - student).square().sum((-2, -1)), teacher.square().sum((-2, -1)))


def logit_divergence(teacher: Tensor, student: Tensor) -> Tensor:
    """Σ_v p_v ln(p_v / p′_v) in nats, the divergence of predictions from logits (..., V) (Hinton et al. 2015).

    Returns:
        (...).

    Example:
        >>> logit_divergence(torch.tensor([0.0, 0.0]), torch.tensor([0.0, 0.0]))
        tensor(0.)
    """
    _require_alike(teacher, student, 1, "(..., V)")
    expected, predicted = teacher.log_softmax(-1), student.log_softmax(-1)
    return _finite(functional.kl_div(predicted, expected, reduction="none", log_target=True).sum(-1))


def _require_alike(teacher: Tensor, student: Tensor, rank: int, form: str) -> None:
    for name, tensor in (("teacher", teacher), ("student", student)):
        require_floating(name, tensor)
        if tensor.ndim < rank or 0 in tensor.shape[-rank:]:
            raise InputError(f"{name} must have shape {form} with no size 0 behind the dots, got {tuple(tensor.shape)}")
        require_finite(name, tensor)
    if teacher.shape != student.shape:
        raise InputError(f"student must have the teacher's shape {tuple(teacher.shape)}, got {tuple(student.shape)}.")


def _relative(distance: Tensor, size: Tensor) -> Tensor:
    """The root of a squared distance over that of a squared size."""
    # The root of 0 has no derivative. Teacher and student may have different dtypes.
    smallest = max(torch.finfo(part.dtype).tiny for part in (distance, size))
    return _finite(distance.clamp(min=smallest).sqrt() / size.clamp(min=smallest).sqrt())


def _finite(distance: Tensor) -> Tensor:
    if not all_finite(distance):
        raise InputError(f"teacher and student are too far apart, or too large, to be compared in {distance.dtype}")
    return distance


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
    """Whether the chunk-parallel form gives the same: real, diagonal, and no decay too strong for it."""
    if recurrence.is_complex or recurrence.A.dim() != recurrence.B.dim() or not recurrence.A.numel():
        return False
    smallest = recurrence.A.detach().amin()
    return bool(smallest > 0) and smallest.log().item() >= MINIMUM_LOG_DECAY
