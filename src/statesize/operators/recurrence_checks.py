"""What a recurrence may be made of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from statesize.check import (
    broadcast_batch,
    require_finite,
    require_floating,
    require_length,
    require_rank,
    require_same_device,
    shape,
)
from statesize.errors import InputError
from statesize.operators.transition import (
    DeltaTransition,
    DiagonalTransition,
    FullTransition,
    RankOneTransition,
    Transition,
)


def checked_transition(A: Tensor, B: Tensor) -> Transition:
    """A as transitions of the states of B."""
    if B.ndim < 2:
        raise InputError(f"B must have shape (..., L, n), got {shape(B)}")
    length, states = B.shape[-2:]
    if A.ndim == B.ndim + 1:
        if A.shape[-3:] != (length, states, states):
            raise InputError(f"A must have shape (..., {length}, {states}, {states}) for B {shape(B)}, got {shape(A)}")
        transition: Transition = FullTransition(A)
    else:
        if A.ndim != B.ndim or A.shape[-2] != length or A.shape[-1] not in (1, states):
            raise InputError(
                f"A must have shape (..., {length}, 1), (..., {length}, {states}) or "
                f"(..., {length}, {states}, {states}) for B {shape(B)}, got {shape(A)}"
            )
        transition = DiagonalTransition(A)
    require_finite("A", A)
    return transition


def checked_parts(
    transition: Transition, B: Tensor, C: Tensor, D: Tensor | None, conjugate_pairs: bool
) -> tuple[torch.dtype, torch.Size]:
    """The dtype and the batch shape of a recurrence of these parts, whose A is known to be finite."""
    require_rank("C", C, B.ndim, "(..., L, n)")
    if C.shape[-2:] != B.shape[-2:]:
        raise InputError(f"B and C must have the same length and state size, got {shape(B)} and {shape(C)}")
    require_length("B", B, -2)
    _require_state("B", B)
    decay = transition.decay if not isinstance(transition, FullTransition) else transition.full[..., 0]
    tensors = {"A": decay, "B": B, "C": C}
    batches = {"A": decay.shape[:-2], "B": B.shape[:-2], "C": C.shape[:-2]}
    extra = {"beta": transition.beta} if isinstance(transition, DeltaTransition) else {}
    if isinstance(transition, RankOneTransition):
        extra = {"column": transition.column, "row": transition.row}
    tensors |= extra
    batches |= {name: tensor.shape[:-2] for name, tensor in extra.items()}
    if D is not None:
        require_floating("D", D)
        require_rank("D", D, B.ndim - 1, "(..., L) or (..., 1)")
        if D.shape[-1] not in (1, B.shape[-2]):
            raise InputError(f"D must have shape (..., {B.shape[-2]}) or (..., 1) for B {shape(B)}, got {shape(D)}")
        tensors["D"] = D
        batches["D"] = D.shape[:-1]
    for name, tensor in tensors.items():
        if name != "A":
            require_finite(name, tensor)
    require_same_device(tensors)
    batch_shape = broadcast_batch(batches)
    if conjugate_pairs and not any(tensor.is_complex() for tensor in tensors.values()):
        raise InputError("conjugate_pairs=True is for complex recurrences, got real A, B and C")
    common = tensors["A"].dtype
    for tensor in tensors.values():
        common = torch.promote_types(common, tensor.dtype)
    return common, batch_shape


def checked_delta_parts(key: Tensor, beta: Tensor, query: Tensor, decay: Tensor) -> Tensor:
    """The decays of a delta rule of these parts, (..., L, 1) or (..., L, n)."""
    parts = {"key": key, "beta": beta, "query": query, "decay": decay}
    for name, tensor in parts.items():
        require_floating(name, tensor)
    if key.ndim < 2:
        raise InputError(f"key must have shape (..., L, n), got {shape(key)}")
    require_length("key", key, -2)
    _require_state("key", key)
    require_rank("beta", beta, key.ndim - 1, "(..., L)")
    if decay.ndim == key.ndim - 1:
        decay = decay[..., None]
    require_rank("decay", decay, key.ndim, "(..., L) or (..., L, n)")
    length, states = key.shape[-2:]
    if beta.shape[-1] != length or decay.shape[-2] != length or decay.shape[-1] not in (1, states):
        raise InputError(
            f"beta must have shape (..., {length}) and decay (..., {length}) or (..., {length}, {states}) "
            f"for key {shape(key)}, got {shape(beta)} and {shape(decay)}"
        )
    for name, tensor in parts.items():
        require_finite(name, tensor)
    if query.shape[-2:] != key.shape[-2:] or query.ndim != key.ndim:
        raise InputError(f"query must have the shape of key, (..., L, n), got {shape(query)} for {shape(key)}")
    require_same_device(parts)
    return decay


def check_rank_one_parts(parts: Mapping[str, Tensor], B: Tensor, C: Tensor) -> None:
    """Refuse parts of a diagonal plus rank one that do not fit B."""
    for name, tensor in (*parts.items(), ("B", B), ("C", C)):
        require_floating(name, tensor)
        require_rank(name, tensor, B.ndim, "(..., L, n)")
        if tensor.shape[-2] != B.shape[-2] or tensor.shape[-1] not in (B.shape[-1], 1 if name == "decay" else -1):
            raise InputError(f"{name} must have the length and state size of B, {shape(B)}, got {shape(tensor)}.")
        require_finite(name, tensor)
    require_same_device(dict(parts))


@torch.no_grad()
def require_real_output(C: Tensor, states: Iterable[Tensor]) -> None:
    """Refuse modes without conjugates: states of a real input, (..., n, 1) each, that are not read as real numbers."""
    imaginary: list[Tensor] = []
    size: list[Tensor] = []
    for t, state in enumerate(states):
        # |C||x| measures the round-off.
        terms = C[..., t, :] * state.squeeze(-1)
        imaginary.append(terms.sum(-1).imag.abs())
        size.append(terms.abs().sum(-1))
    tolerance = torch.finfo(C.dtype).eps ** 0.5
    if bool((torch.stack(imaginary) > tolerance * torch.stack(size).amax(0)).any()):
        raise InputError(
            "conjugate_pairs=True, but T has an imaginary part: the modes of A, B and C do not come in conjugate "
            "pairs. Give both of each pair, or leave conjugate_pairs out"
        )


def _require_state(name: str, tensor: Tensor) -> None:
    """Refuse a state of no numbers."""
    if not tensor.shape[-1]:
        raise InputError(
            f"state size n must be at least 1, got 0 from {name} of shape {shape(tensor)}. Give zeros with n = 1."
        )
