"""`statesize.reduce`: the recurrence of few states that is equal or near to an operator."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast, overload

import torch
from torch import Tensor
from torch.nn import functional

from statesize.check import all_finite, require_count, require_real
from statesize.errors import InputError
from statesize.io.devices import on_cpu_by_default
from statesize.operators import Convolution, Operator, Recurrence
from statesize.operators.stepped import DelayedRecurrence
from statesize.operators.transition import DiagonalTransition
from statesize.reduction.convolutions import reduce_convolution
from statesize.reduction.reduction import Reduction
from statesize.spectra.factorisation import observability_factors, reachability_factors

_linalg = cast("Any", torch.linalg)
# Singular values up to this share of the largest over all positions count as round-off.
_ROUND_OFF = 1e-12


@dataclass(frozen=True, eq=False)
class VaryingReduction:
    """The recurrence z_{i+1} = A_i z_i + B_i u_i, y_i = C_i z_i + D_i u_i of T at one input, in float64.

    Attributes:
        recurrence: The operator. It has as many states as the largest z_i needs; the others are 0.
        state_size: Numbers in z_i, (..., L) int64; 0 at i = 0. If nothing is dropped it is ESS_i, the rank of H_i.
        singular_values: σ(H_i) at i = 1 … L − 1, descending, (..., L − 1, n).
        bound: ‖T − T_r‖₂, (...), computed from both matrices.
    """

    recurrence: Recurrence
    state_size: Tensor
    singular_values: Tensor
    bound: Tensor

    def __repr__(self) -> str:
        most = int(self.state_size.max())
        return (
            f"A recurrence over {self.recurrence.length} positions, reduced to at most {most} states\n"
            f"distance of T from it, in the norm of operators: at most {float(self.bound.max()):.2g}\n"
            "next: .recurrence, .state_size, .singular_values"
        )


@torch.no_grad()
def _reduce_recurrence(operator: Recurrence, state_size: int | None, tolerance: float | None) -> VaryingReduction:
    """The time-varying balanced realisation, with at most `state_size` states or without σ up to the tolerance."""
    # L_i and S_i are factors of the reachability and observability Gramians of the state x_i. With S_i L_i = U Σ Vᵀ,
    # P_i = Σ^{−1/2} Uᵀ S_i maps x_i to balanced coordinates z_i and Q_i = L_i V Σ^{−1/2} maps them back, so that
    # z_{i+1} = P_{i+1} (A_i Q_i z_i + B_i u_i) and y_i = C_i (A_i Q_i z_i + B_i u_i) + D_i u_i. Directions with σ = 0
    # are never written or never read, so rank H_i states suffice at every i (Shokoohi, Silverman and Van Dooren, 1983;
    # van der Veen and Dewilde).
    real = _real(operator.to(torch.float64))
    T = real.dense()
    past, future = _factors(real)
    products = future @ past
    _require_numbers(T, products)
    U, sigma, Vh = _linalg.svd(products)
    kept = sigma > max(tolerance or 0.0, _ROUND_OFF * float(sigma.amax()) if sigma.numel() else 0.0)
    if state_size is not None:
        kept[..., state_size:] = False
    counts = kept.sum(-1)
    most = max(1, int(counts.amax()) if counts.numel() else 0)
    root = torch.where(kept, sigma, torch.inf).rsqrt()[..., :most]
    P = root[..., None] * (U.mT @ future)[..., :most, :]
    Q = past @ Vh.mT[..., :most] * root[..., None, :]
    # P and Q are those of i = 1 … L − 1.
    shape = real.batch_shape
    B, C = (part.expand(*shape, *part.shape[-2:]) for part in (real.B, real.C))
    # A_i Q_i for i = 1 … L − 1.
    steps, diagonal = real.transition.matrix(), isinstance(real.transition, DiagonalTransition)
    AQ = steps[..., 1:, :, None] * Q if diagonal else steps[..., 1:, :, :] @ Q
    A = P[..., 1:, :, :] @ AQ[..., :-1, :, :]
    PB = (P @ B[..., :-1, :, None]).squeeze(-1)
    CAQ = (C[..., 1:, None, :] @ AQ).squeeze(-2)
    feed = (B * C).sum(-1) + (0 if real.D is None else real.D)
    pad = functional.pad
    A = pad(A, (0, 0, 0, 0, 1, 1))[..., : real.length, :, :]
    reduced = DelayedRecurrence(A, pad(PB, (0, 0, 0, 1)), pad(CAQ, (0, 0, 1, 0)), feed)
    difference = T - reduced.dense()
    _require_numbers(difference)
    error = _linalg.matrix_norm(difference, 2)
    return VaryingReduction(reduced, pad(counts, (1, 0)), sigma, error)


def _require_numbers(*parts: Tensor) -> None:
    if not all(all_finite(part) for part in parts):
        raise InputError(
            "operator must have a T and Gramians within float64, got entries that overflow. Check the decays, gates "
            "and scores that it is made of."
        )


def _real(operator: Recurrence) -> Recurrence:
    """The recurrence with two real states for each complex one."""
    if not operator.is_complex:
        return operator
    A = operator.A
    if isinstance(operator.transition, DiagonalTransition):
        A = torch.diag_embed(A.expand(*A.shape[:-1], operator.B.shape[-1]))
    A = torch.cat([torch.cat([A.real, -A.imag], -1), torch.cat([A.imag, A.real], -1)], -2)
    B = torch.cat([operator.B.real, operator.B.imag], -1)
    return Recurrence(A, B, torch.cat([operator.C.real, -operator.C.imag], -1), operator.D)


def _factors(real: Recurrence) -> tuple[Tensor, Tensor]:
    """L_i and S_i at i = 1 … L − 1, (..., L − 1, n, n)."""
    # The zeros are cut off; they give the stack its shape if L is 1.
    zero = real.B.new_zeros((*real.batch_shape, *2 * real.B.shape[-1:]))
    past = torch.stack([zero, *reachability_factors(real)], -3)
    future = torch.stack([zero, *observability_factors(real)][::-1], -3)
    return past[..., 1:, :, :], future[..., :-1, :, :]


@overload
def reduce(operator: Convolution, *, state_size: int | None = None, tolerance: float | None = None) -> Reduction: ...
@overload
def reduce(
    operator: Recurrence, *, state_size: int | None = None, tolerance: float | None = None
) -> VaryingReduction: ...
@on_cpu_by_default
def reduce(
    operator: Operator, *, state_size: int | None = None, tolerance: float | None = None
) -> Reduction | VaryingReduction:
    """The recurrence with few states that equals or approximates an operator.

    For a convolution it is time-invariant; if it is exact or "balanced", it is valid for sequences of any length. For a
    recurrence, which may have been computed from an input, it varies along the sequence and is valid for that input.
    Without a size or tolerance it is exact up to round-off: the state at i has ESS_i numbers, the rank of H_i, which is
    the least possible. Convolutions whose H_{L/2} has full rank keep their K − 1 taps.

    Args:
        operator: A convolution or a recurrence; all convolutions of a batch get as many states as the most demanding.
        state_size: Largest number of states.
        tolerance: For a convolution the largest error of T in the ℓ²-induced norm; for a recurrence the largest
            Hankel singular value that is dropped, at each position separately.

    Returns:
        A `Reduction` of a convolution, a `VaryingReduction` of a recurrence; both have the recurrence, its state size
        and a bound on its error.

    Raises:
        InputError: Another operator, an empty batch, both a size and a tolerance, one that is out of range, or an
            operator whose numbers overflow.

    Example:
        >>> import torch
        >>> t = torch.arange(64.0, dtype=torch.float64)
        >>> found = reduce(Convolution(0.9**t - 0.5**t, length=64))
        >>> found.state_size, bool(found.bound < 1e-12)
        (2, True)
    """
    if not isinstance(operator, Convolution | Recurrence):
        given = type(operator).__name__
        raise InputError(
            f"operator must be a Convolution or a Recurrence, which have a finite recurrence of their own, got {given}."
        )
    if not operator.batch_shape.numel():
        raise InputError(f"operator must have at least one batch entry, got batch shape {tuple(operator.batch_shape)}.")
    if state_size is not None and tolerance is not None:
        raise InputError(f"tolerance must be left out with state_size, got {tolerance} and {state_size}.")
    if state_size is not None:
        state_size = require_count("state_size", state_size)
    if tolerance is not None:
        advice = "Leave it out for the exact recurrence."
        tolerance = require_real("tolerance", tolerance, above=0, advice=advice)
    if isinstance(operator, Convolution):
        return reduce_convolution(operator, state_size, tolerance)
    return _reduce_recurrence(operator, state_size, tolerance)
