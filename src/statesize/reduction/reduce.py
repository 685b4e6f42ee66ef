"""`statesize.reduce`: the recurrence of few states that is equal or near to an operator."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn.functional import pad

from statesize.check import refuse, require_count, require_finite, require_real
from statesize.io.devices import on_cpu_by_default
from statesize.operators import Convolution, Operator, Recurrence, StateSpace
from statesize.reduction.convolutions import realise
from statesize.spectra.border_maps import border_maps
from statesize.spectra.factorisation import border_factors

_linalg = cast("Any", torch.linalg)
# Singular values up to this share of the largest over all positions count as round-off.
_ROUND_OFF = 1e-12


@dataclass(frozen=True, eq=False)
class Reduction:
    """The recurrence x_{i+1} = A_i x_i + B_i u_i, y_i = C_i x_i + D_i u_i of an operator, in float64.

    Attributes:
        recurrence: A, B, C and D; it has as many states as the largest x_i needs, one at least, and the others are 0.
        state_size: Numbers in x_i, (..., L) int64. Of a recurrence of which nothing is dropped, this is ESS_i.
        singular_values: Of a recurrence σ(H_i) at i = 1 … L − 1, descending, (..., L − 1, n); of a convolution those of
            the Hankel matrix that the method decomposes, (..., N).
        bound: Upper bound of ‖T − T_r‖₂, (...).
        method: "varying" of a recurrence; "ho_kalman" of a convolution, from H_{L/2}, or "balanced", by truncation of
            the zero-extended kernel, which holds for inputs of any length.
    """

    recurrence: StateSpace
    state_size: Tensor
    singular_values: Tensor
    bound: Tensor
    method: str

    def __repr__(self) -> str:
        length, states, bound = self.recurrence.length, int(self.state_size.max()), float(self.bound.max())
        return f"A recurrence over {length} positions of at most {states} states, ‖T − T_r‖₂ ≤ {bound:.2g}"


@on_cpu_by_default
@torch.no_grad()
def reduce(operator: Operator, *, state_size: int | None = None, tolerance: float | None = None) -> Reduction:
    """The recurrence with few states that equals or approximates an operator.

    For a convolution it is time-invariant; if exact or "balanced", it is valid for sequences of any length. For a
    recurrence it varies along the sequence and is valid for the input that this was computed from. Without a size or
    tolerance it is exact up to round-off: the state at i has ESS_i = rank H_i numbers, the least possible; convolutions
    whose H_{L/2} has full rank keep their K − 1 taps.

    Args:
        operator: A convolution or a recurrence; all convolutions of a batch get as many states as the most demanding.
        state_size: Largest number of states.
        tolerance: For a convolution the largest error of T in the ℓ²-induced norm; for a recurrence the largest
            Hankel singular value that is dropped, at each position separately.

    Returns:
        The recurrence, its state size and a bound on its error.

    Raises:
        InputError: Another operator, an empty batch, both a size and a tolerance or one out of range, or an overflow.

    Example:
        >>> import torch
        >>> t = torch.arange(64.0, dtype=torch.float64)
        >>> found = reduce(Convolution(0.9**t - 0.5**t, length=64))
        >>> int(found.state_size.max()), bool(found.bound < 1e-12)
        (2, True)
    """
    if not isinstance(operator, Convolution | Recurrence) or not operator.batch_shape.numel():
        refuse("operator", "a Convolution or a Recurrence of at least one batch entry", operator)
    if state_size is not None and tolerance is not None:
        refuse("tolerance", "None beside a state_size", tolerance)
    state_size = None if state_size is None else require_count("state_size", state_size)
    tolerance = None if tolerance is None else require_real("tolerance", tolerance, above=0)
    if isinstance(operator, Convolution):
        return _of_convolution(operator, state_size, tolerance)
    return _of_recurrence(operator.to(torch.float64), state_size, tolerance)


def _of_convolution(operator: Convolution, state_size: int | None, tolerance: float | None) -> Reduction:
    found, batch = realise(operator, state_size, tolerance), operator.batch_shape
    states = found.B.shape[-1]
    # An operator has at least one state, which may stay 0.
    parts = [pad(part, (0, int(states == 0)) * (part.ndim - 1)) for part in found[:3]]
    A, B, C, bound, values = (part.reshape(batch + part.shape[1:]) for part in (*parts, *found[3:5]))
    feed = operator.kernel[..., :1, None].double()
    recurrence = StateSpace(A, B[..., None], C[..., None, :], feed, length=operator.length)
    sizes = torch.full((*batch, operator.length), states, device=bound.device)
    return Reduction(recurrence, sizes, values, bound, found.method)


def _of_recurrence(operator: Recurrence, state_size: int | None, tolerance: float | None) -> Reduction:
    """The time-varying balanced realisation, with at most `state_size` states or without σ up to the tolerance."""
    # L_i and S_i are factors of the reachability and observability Gramians of the state x_i. With S_i L_i = U Σ Vᵀ,
    # P_i = Σ^{−1/2} Uᵀ S_i maps x_i to balanced coordinates z_i and Q_i = L_i V Σ^{−1/2} maps them back, so that
    # z_{i+1} = P_{i+1} (A_i Q_i z_i + B_i u_i) and y_i = C_i (A_i Q_i z_i + B_i u_i) + D_i u_i. Directions with σ = 0
    # are never written or never read, so rank H_i states suffice at every i (Shokoohi, Silverman and Van Dooren, 1983;
    # van der Veen and Dewilde).
    T, (observability, reachability, A) = operator.dense(), border_maps(operator, list(range(operator.length + 1)))
    if operator.is_complex:
        # Two real states for each complex one.
        observability = torch.cat([observability.real, -observability.imag], -1)
        reachability = torch.cat([reachability.real, reachability.imag], -2)
        A = torch.cat([torch.cat([A.real, -A.imag], -1), torch.cat([A.imag, A.real], -1)], -2)
    past, future = border_factors(observability, reachability, A)
    # At i = 1 … L − 1.
    past, future = past[..., 1:, :, :], future[..., :-1, :, :]
    products = future @ past
    for name, part in (("T", T), ("Gramians of the state", products)):
        require_finite(name, part)
    U, sigma, Vh = _linalg.svd(products)
    kept = sigma > max(tolerance or 0.0, _ROUND_OFF * float(sigma.amax()) if sigma.numel() else 0.0)
    kept[..., state_size or sigma.shape[-1] :] = False
    counts = kept.sum(-1)
    most = int(counts.amax().clamp(min=1)) if counts.numel() else 1
    root = torch.where(kept, sigma, torch.inf).rsqrt()[..., :most]
    P = root[..., None] * (U.mT @ future)[..., :most, :]
    Q = past @ Vh.mT[..., :most] * root[..., None, :]
    # Nothing is read of the state before the first position, and nothing written behind the last.
    A = pad(P[..., 1:, :, :] @ A[..., 1:-1, :, :] @ Q[..., :-1, :, :], (0, 0, 0, 0, 1, 1))[..., : operator.length, :, :]
    written = pad(P @ reachability[..., :-1, :, :], (0, 0, 0, 0, 0, 1))
    read = pad(observability[..., 1:, :, :] @ Q, (0, 0, 0, 0, 1, 0))
    reduced = StateSpace(A, written, read, T.diagonal(0, -2, -1)[..., None, None])
    return Reduction(reduced, pad(counts, (1, 0)), sigma, _linalg.matrix_norm(T - reduced.dense(), 2), "varying")
