"""How far a student is from its teacher: in its operators, in its hidden states and in its logits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint  # pyright: ignore[reportUnknownVariableType]

from statesize.check import all_finite, require_count, require_finite, require_floating, require_kind
from statesize.errors import InputError
from statesize.lab.mixers.chunk import MINIMUM_LOG_DECAY, mix_chunked
from statesize.operators import Operator, Recurrence
from statesize.operators.transition import DiagonalTransition

# torch leaves the type of its result open.
_formed_again = cast("Callable[..., Tensor]", cast("Any", checkpoint))


def operator_error(teacher: Operator, student: Operator, block_size: int = 256) -> Tensor:
    """‖T − T′‖_F / ‖T‖_F of each pair of operators; gradients flow to the tensors of the student.

    The operators are compared by columns, `block_size` at a time. Where there are several blocks, each is formed anew
    for its gradient, so that neither T nor the T′ of a recurrence is ever held whole. Recurrences whose state is real
    and diagonal, with decays of at least e⁻⁴, take the chunk-parallel form; others are stepped, and the gradient of a
    block then holds n · block_size numbers per position.

    "Matrix orientation" of Bick et al., "Transformers to SSMs: Distilling Quadratic Knowledge to Subquadratic Models",
    2024.

    Args:
        teacher: T at some input.
        student: T′ at the same input, of the same length and batch shape.
        block_size: Columns of a block.

    Returns:
        Batch shape; where T is 0, the norm of T′ in units of the smallest number of its dtype.

    Raises:
        InputError: The operators differ in length or batch shape, overflow when squared, or are none; or the block
            size is not positive.

    Example:
        >>> ones = torch.ones(4, 1)
        >>> operator_error(Recurrence(ones, ones, ones), Recurrence(ones, ones, 0.9 * ones))
        tensor(0.1000)
    """
    for name, one in (("teacher", teacher), ("student", student)):
        require_kind(name, one, Operator, "a statesize Operator")
    block_size = require_count("block_size", block_size)
    if (teacher.length, teacher.batch_shape) != (student.length, student.batch_shape):
        raise InputError(
            f"student must have the length {teacher.length} and batch shape {tuple(teacher.batch_shape)} of teacher, "
            f"got {student.length} and {tuple(student.batch_shape)}. Give both at the same input, unit by unit."
        )
    parts: list[Tensor] = []
    for first in range(0, teacher.length, block_size):
        columns = (teacher, student, first, min(first + block_size, teacher.length))
        if block_size < teacher.length and torch.is_grad_enabled():
            parts.append(_formed_again(_squared_norms, *columns, use_reentrant=False, preserve_rng_state=False))
        else:
            parts.append(_squared_norms(*columns))
    distance, size = torch.stack(parts).sum(0)
    return _relative(distance, size)


def hidden_error(teacher: Tensor, student: Tensor) -> Tensor:
    """‖X − X′‖_F / ‖X‖_F of the hidden states of each sequence ("hidden-state alignment" of Bick et al. 2024).

    Args:
        teacher: X, (..., L, d).
        student: X′, of the same shape.

    Returns:
        (...).

    Raises:
        InputError: They are no such tensors, of different shapes, not finite, or overflow when squared.

    Example:
        >>> hidden_error(torch.full((2, 3, 4), 2.0), torch.ones(2, 3, 4))
        tensor([0.5000, 0.5000])
    """
    _require_alike(teacher, student, 2, "(..., L, d)")
    return _relative((teacher - student).square().sum((-2, -1)), teacher.square().sum((-2, -1)))


def logit_divergence(teacher: Tensor, student: Tensor) -> Tensor:
    """The Kullback–Leibler divergence of the student's prediction from the teacher's (Hinton et al. 2015), in nats.

    Args:
        teacher: Logits, (..., V).
        student: Logits, (..., V).

    Returns:
        Σ_v p_v ln(p_v / p′_v), (...).

    Raises:
        InputError: They are no such tensors, of different shapes, or not finite.

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


def _squared_norms(teacher: Operator, student: Operator, first: int, last: int) -> Tensor:
    """Squared norms of some columns of T − T′ and of T, (2, ...)."""
    with torch.no_grad():
        target = _columns(teacher, first, last)
    distance = target - _columns(student, first, last)
    return torch.stack([part.square().sum((-2, -1)) for part in (distance, target)])


def _columns(operator: Operator, first: int, last: int) -> Tensor:
    """T[first:, first:last], (..., L − first, last − first), with gradients where they are needed."""
    units = torch.eye(operator.length - first, last - first, dtype=operator.dtype, device=operator.device)
    if isinstance(operator, Recurrence) and _fits_chunks(operator):
        log_decay = operator.A[..., first:, :].log()
        columns = mix_chunked(operator.C[..., first:, :], operator.B[..., first:, :], units, log_decay)
        if operator.D is None:
            return columns
        feed = operator.D.expand(*operator.D.shape[:-1], operator.length)
        return columns + units * feed[..., None, first:last]
    if not torch.is_grad_enabled() and not isinstance(operator, Recurrence):
        return operator.columns(first, last)
    # Nothing comes out before the first of the inputs.
    units = functional.pad(units, (0, 0, first, 0))
    return operator.apply(units.expand(*operator.batch_shape, *units.shape))[..., first:, :]


def _fits_chunks(recurrence: Recurrence) -> bool:
    """Whether the chunk-parallel form gives the same: real, diagonal, and no decay too strong for it."""
    if recurrence.is_complex or not isinstance(recurrence.transition, DiagonalTransition):
        return False
    if not recurrence.A.numel():
        return False
    smallest = float(recurrence.transition.decay.detach().amin())
    return smallest > 0 and recurrence.A.new_tensor(smallest).log().item() >= MINIMUM_LOG_DECAY
