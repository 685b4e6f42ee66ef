"""All singular values of a recurrence from square-root factors of its two Gramians."""

from __future__ import annotations

import torch
from torch import Tensor

from statesize.operators import Recurrence
from statesize.operators.transition import DiagonalTransition
from statesize.spectra.bounds import carried_error, denormal_error
from statesize.spectra.cut import Cut
from statesize.spectra.exact.triangular_update import carried_factors
from statesize.spectra.factorisation import frobenius_norm, singular_values, triangular_factor
from statesize.spectra.spectrum import Spectrum


def square_root_singular_values(recurrence: Recurrence, cut: Cut) -> Spectrum:
    """σ(H_i) = σ(S_i L_i), with the factors carried from position to position by QR; O(L n³).

    H_i = O_i R_i with R_i = [A_{i−1}…A_1 B_0, …, B_{i−1}] and O_i the rows C_r A_r … A_i, r ≥ i. With R_i R_iᵀ =
    L_i L_iᵀ and O_iᵀ O_i = S_iᵀ S_i,

        L_{i+1}ᵀ = R of qr([(A_i L_i)ᵀ; B_iᵀ]),    S_i = R of qr([S_{i+1}; C_i] A_i),

    by plane rotations in O(L n²) where A is real and diagonal.

    The Gramians themselves are never formed, so small singular values keep their accuracy relative to σ_1
    (square-root balancing: Tombs and Postlethwaite, 1987; time-varying: van der Veen and Dewilde).

    Args:
        recurrence: Any recurrence.
        cut: Which blocks, not windowed.

    Returns:
        The spectrum, r = min(n, the largest min(rows, columns)).
    """
    real = recurrence.with_real_output()
    states = real.B.shape[-1]
    by_rotations = isinstance(real.transition, DiagonalTransition) and not real.B.is_complex()
    products, reach, observe = (_rotated_factors if by_rotations else _factors)(real, cut)
    r = min(states, cut.largest_rank())
    bound = propagation_error(real, reach, observe)
    limit = cut.limits(bound.device)
    if not cut.positions:
        return Spectrum(bound.new_zeros((*real.batch_shape, 0, r)), bound[..., :0], limit)
    values = singular_values(products)[..., :r]
    # A block of fewer rows or columns than states has no further singular values; what is left there is round-off.
    values = values.masked_fill(torch.arange(r, device=values.device) >= limit[:, None], 0)
    positions = torch.tensor(cut.positions, device=values.device)
    return Spectrum(values, bound[..., positions - 1], limit)


def _factors(real: Recurrence, cut: Cut) -> tuple[Tensor, Tensor, Tensor]:
    """S_i L_i at the positions of a cut, (..., P, n, n), and ‖L_t‖_F, t = 0 … L − 1, and ‖S_t‖_F, t = 1 … L."""
    A, B, C = real.transition, real.B, real.C
    length, states = B.shape[-2:]
    wanted = set(cut.positions)
    zero = B.new_zeros((*real.batch_shape, states, states))

    past, reach, reach_norms = zero, dict[int, Tensor](), _Norms(zero)
    for t in range(length - 1):
        arriving = B[..., t, None, :].conj().expand(*real.batch_shape, 1, states)
        past = triangular_factor(torch.cat([A.advance(t, past).mH, arriving], -2)).mH
        reach_norms.append(past)
        if t + 1 in wanted:
            reach[t + 1] = past

    rows, products, observe_norms = zero, dict[int, Tensor](), _Norms(zero)
    for t in range(length - 1, 0, -1):
        leaving = C[..., t, None, :].expand(*real.batch_shape, 1, states)
        rows = triangular_factor(A.recede(t, torch.cat([rows, leaving], -2)))
        observe_norms.append(rows)
        if t in wanted:
            products[t] = rows @ reach.pop(t)
    found = [products[i] for i in cut.positions] or [zero]
    return torch.stack(found, -3), reach_norms.joined(), observe_norms.joined().flip(-1)


def _rotated_factors(real: Recurrence, cut: Cut) -> tuple[Tensor, Tensor, Tensor]:
    """The same for a real diagonal transition."""
    shape = (*real.batch_shape, real.length)
    decay, B, C = (
        part.expand(*shape, part.shape[-1]).flatten(0, -3) if len(shape) > 1 else part[None]
        for part in (real.transition.matrix(), real.B, real.C)
    )
    wanted = torch.zeros(real.length, dtype=torch.bool, device=B.device)
    positions = torch.tensor(cut.positions, dtype=torch.int64, device=B.device)
    wanted[positions] = True
    L, reach = carried_factors(decay[:, :-1], B[:, :-1], wanted[1:])
    backward = decay[:, 1:].flip(1)
    S, observe = carried_factors(backward, C[:, 1:].flip(1) * backward, wanted[1:].flip(0))
    place = (wanted.cumsum(0) - 1)[positions]
    products = S.flip(1)[:, place] @ L[:, place].mT
    pad = torch.nn.functional.pad
    found = (products, pad(reach, (1, 0)), pad(observe.flip(1), (0, 1)))
    products, reach, observe = (part.reshape(*shape[:-1], *part.shape[1:]) for part in found)
    return products, reach, observe


class _Norms:
    """Frobenius norms of factors as they come, many in one call: one call each would be a sixth of all time."""

    def __init__(self, first: Tensor) -> None:
        self._recent: list[Tensor] = [first]
        self._known: list[Tensor] = []

    def append(self, factor: Tensor) -> None:
        self._recent.append(factor)
        if len(self._recent) == 64:
            self._take()

    def joined(self) -> Tensor:
        """All norms, (..., number of factors)."""
        if self._recent:
            self._take()
        return torch.cat(self._known, -1)

    def _take(self) -> None:
        self._known.append(frobenius_norm(torch.stack(self._recent, -3)))
        self._recent = []


def propagation_error(real: Recurrence, reach: Tensor, observe: Tensor) -> Tensor:
    """How far the singular values of S_i L_i can be from those of H_i, for the round-off of the steps.

    A step's round-off E_t, at most ε(‖L_t‖ + ‖A_{t−1}‖‖L_{t−1}‖), reaches H_i as O_i Φ(i, t) E_t. Its norm is at
    most ‖S_t‖‖E_t‖, since the rows of O_i Φ(i, t) are among those of O_t; summed over t this is the first bound.
    Carrying ‖E_t‖ on with ‖A_t‖ gives the second, which forgets what the recurrence forgets. The other factor is
    treated alike. ε = 2 (n + 1) eps stands for one orthogonal transformation (Higham, Accuracy and Stability of
    Numerical Algorithms, theorem 19.4, whose worst-case constant grows like n² and is not approached in practice).

    Args:
        real: The recurrence.
        reach: ‖L_t‖_F, t = 0 … L − 1, (..., L).
        observe: ‖S_t‖_F, t = 1 … L, (..., L).

    Returns:
        δ at positions 1 … L − 1, (..., L − 1).
    """
    epsilon = 2 * (real.B.shape[-1] + 1) * torch.finfo(real.dtype).eps
    gain = real.transition.gain().expand(*real.batch_shape, real.length)
    leaving = frobenius_norm(real.C[..., None]).expand(*real.batch_shape, real.length)
    step_past = epsilon * (reach[..., 1:] + gain[..., :-1] * reach[..., :-1]) + denormal_error(reach[..., 1:])
    step_future = epsilon * (observe[..., :-1] + gain[..., 1:] * torch.hypot(observe[..., 1:], leaving[..., 1:]))
    step_future = step_future + denormal_error(observe[..., :-1])
    total = (step_past * observe[..., :-1] + step_future * reach[..., 1:]).sum(-1, keepdim=True)
    past = carried_error(gain[..., :-1], step_past)
    future = carried_error(gain[..., 1:].flip(-1), step_future.flip(-1)).flip(-1)
    local = observe[..., :-1] * past + reach[..., 1:] * future
    size = observe[..., :-1] * reach[..., 1:]
    return torch.minimum(total, torch.nan_to_num(local, nan=torch.inf)) + epsilon * size + denormal_error(size)
