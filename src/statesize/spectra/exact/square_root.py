"""All singular values of a recurrence from square-root factors of its two Gramians."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, cast

import numba
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from statesize.operators import Operator, Recurrence
from statesize.operators.transition import DiagonalTransition
from statesize.spectra.cut import Cut
from statesize.spectra.engine import OUTPUTS, Engine, Footprint, largest_state, number_bytes
from statesize.spectra.exact.exact import exact_operations
from statesize.spectra.exact.few_positions import are_few, few_spectra, stretch_numbers
from statesize.spectra.exact.sliding_window import stretch_length, windowed_spectrum
from statesize.spectra.factorisation import frobenius_norm, observability_factors, reachability_factors, singular_values
from statesize.spectra.spectrum import Spectrum, carried_error, denormal_error

# Positions from which T takes longer to form than windows on it take to measure.
_LONGEST_MATRIX = 4096
# Tensors that are made of a stretch of chunks.
_STRETCH = 12


@dataclass(frozen=True)
class SquareRootEngine(Engine):
    """All singular values of a recurrence from square-root factors of its Gramians; also of windows."""

    numbers_held: int = 2**22  # under windows, numbers in one factor at all positions that are factorised at once

    name = "square_root"
    outputs = frozenset(OUTPUTS)
    works_on = (Recurrence,)
    operators = "recurrences"
    windows = True
    squares = False
    converts = True

    def slower_reason(self, operator: Operator, cut: Cut, outputs: tuple[str, ...]) -> str | None:
        """Where the state is as large as the blocks, or so large that `exact` forms and measures T in less time."""
        states, L = largest_state(operator), cut.length
        smaller = 2 * states < min(cut.past or L, cut.future or L)
        if cut.windowed and (smaller or L > _LONGEST_MATRIX):
            return None
        if smaller:
            diagonal = isinstance(operator, Recurrence) and isinstance(operator.transition, DiagonalTransition)
            if diagonal or are_few(cut) or "values" in outputs:
                return None
            # In operations of products of matrices, calls included: a step of each side and a product of factors for
            # each position, or a row of T at a time; measured.
            own = L * (2.5e6 + 1200 * states**2) + 8 * len(cut.positions) * states**3
            whole = L * (1.2e6 + 20 * L * states) + exact_operations(cut)
            return None if own < whole else f"takes {own:.1g} operations, T and its blocks take {whole:.1g}"
        return f"only worthwhile where the state, {states}, is smaller than half the sequence or window"

    def blocks(self, operator: Operator, cut: Cut) -> Spectrum:
        """The spectrum, r = min(n, the largest min(rows, columns))."""
        recurrence = cast("Recurrence", operator)
        if cut.positions and are_few(cut):
            return few_spectra(recurrence, cut)
        if cut.windowed:
            return windowed_spectrum(recurrence, cut, self.numbers_held)
        return square_root_spectrum(recurrence.to(dtype=torch.float64), cut)

    def footprint(self, operator: Operator, cut: Cut) -> Footprint:
        """Both factors at every position, their products, and copies; of few positions also a stretch of chunks."""
        n = largest_state(operator)
        few = are_few(cut)
        if cut.windowed:
            return Footprint(number_bytes(operator) * 12 * stretch_length(cut, n, self.numbers_held) * n**2)
        stretch = _STRETCH * stretch_numbers(cast("Recurrence", operator)) if few else 0
        return Footprint(number_bytes(operator) * ((4 * len(cut.positions) + 130) * n**2 + stretch))


@torch.no_grad()
def square_root_spectrum(recurrence: Recurrence, cut: Cut) -> Spectrum:
    """σ(H_i) = σ(S_i L_i) of blocks that are not windowed, with the factors carried from position to position."""
    real = recurrence.with_real_output()
    states = real.B.shape[-1]
    by_rotations = isinstance(real.transition, DiagonalTransition) and not real.B.is_complex()
    products, L_norms, S_norms = (_rotated_factors if by_rotations else _factors)(real, cut)
    r = min(states, cut.largest_rank())
    bound = propagation_error(real, L_norms, S_norms)
    limit = cut.limits(bound.device)
    if not cut.positions:
        return Spectrum(bound.new_zeros((*real.batch_shape, 0, r)), bound[..., :0], limit)
    values = singular_values(products)[..., :r]
    # A block of fewer rows or columns than states has no further singular values: the others are round-off.
    values = values.masked_fill(torch.arange(r, device=values.device) >= limit[:, None], 0)
    positions = torch.tensor(cut.positions, device=values.device)
    return Spectrum(values, bound[..., positions - 1], limit)


def _factors(real: Recurrence, cut: Cut) -> tuple[Tensor, Tensor, Tensor]:
    """S_i L_i at the positions of a cut, (..., P, n, n), and ‖L_t‖_F, t = 0 … L − 1, and ‖S_t‖_F, t = 1 … L."""
    wanted = set(cut.positions)
    zero = real.B.new_zeros((*real.batch_shape, real.B.shape[-1], real.B.shape[-1]))
    L, L_norms = dict[int, Tensor](), _Norms(zero)
    for t, factor in enumerate(reachability_factors(real), 1):
        L_norms.append(factor)
        if t in wanted:
            L[t] = factor
    products, S_norms = dict[int, Tensor](), _Norms(zero)
    for t, factor in zip(range(real.length - 1, 0, -1), observability_factors(real), strict=True):
        S_norms.append(factor)
        if t in wanted:
            products[t] = factor @ L.pop(t)
    at_positions = [products[i] for i in cut.positions] or [zero]
    return torch.stack(at_positions, -3), L_norms.joined(), S_norms.joined().flip(-1)


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
    L, L_norms = carried_factors(decay[:, :-1], B[:, :-1], wanted[1:])
    backward = decay[:, 1:].flip(1)
    S, S_norms = carried_factors(backward, C[:, 1:].flip(1) * backward, wanted[1:].flip(0))
    index = (wanted.cumsum(0) - 1)[positions]
    products = S.flip(1)[:, index] @ L[:, index].mT
    pad = torch.nn.functional.pad
    parts = (products, pad(L_norms, (1, 0)), pad(S_norms.flip(1), (0, 1)))
    products, L_norms, S_norms = (part.reshape(*shape[:-1], *part.shape[1:]) for part in parts)
    return products, L_norms, S_norms


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


def propagation_error(real: Recurrence, L_norms: Tensor, S_norms: Tensor) -> Tensor:
    """δ of σ(S_i L_i) at positions 1 … L − 1, (..., L − 1), from ‖L_t‖_F, t = 0 … L − 1, and ‖S_t‖_F, t = 1 … L."""
    # A step's round-off E_t, at most ε(‖L_t‖ + ‖A_{t−1}‖‖L_{t−1}‖), reaches H_i as O_i Φ(i, t) E_t. Its norm is at
    # most ‖S_t‖‖E_t‖, since the rows of O_i Φ(i, t) are among those of O_t; summed over t this is the first bound.
    # Carrying ‖E_t‖ on with ‖A_t‖ gives the second, which forgets what the recurrence forgets. The other factor is
    # treated alike. ε = 2 (n + 1) eps stands for one orthogonal transformation (Higham, Accuracy and Stability of
    # Numerical Algorithms, theorem 19.4, whose worst-case constant grows like n² and is not approached in practice).
    epsilon = 2 * (real.B.shape[-1] + 1) * torch.finfo(real.dtype).eps
    gain = real.transition.gain().expand(*real.batch_shape, real.length)
    output = frobenius_norm(real.C[..., None]).expand(*real.batch_shape, real.length)
    step_past = epsilon * (L_norms[..., 1:] + gain[..., :-1] * L_norms[..., :-1]) + denormal_error(L_norms[..., 1:])
    step_future = epsilon * (S_norms[..., :-1] + gain[..., 1:] * torch.hypot(S_norms[..., 1:], output[..., 1:]))
    step_future = step_future + denormal_error(S_norms[..., :-1])
    total = (step_past * S_norms[..., :-1] + step_future * L_norms[..., 1:]).sum(-1, keepdim=True)
    past = carried_error(gain[..., :-1], step_past)
    future = carried_error(gain[..., 1:].flip(-1), step_future.flip(-1)).flip(-1)
    local = S_norms[..., :-1] * past + L_norms[..., 1:] * future
    size = S_norms[..., :-1] * L_norms[..., 1:]
    return torch.minimum(total, torch.nan_to_num(local, nan=torch.inf)) + epsilon * size + denormal_error(size)


Numbers = npt.NDArray[np.float64]


_compile = cast("Any", numba).njit(cache=True, nogil=True, fastmath={"contract"}, error_model="numpy")


def carried_factors(decay: Tensor, rows: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
    """R_t = R of qr([R_{t−1} Diag(decay_t); row_t]) at the wanted steps, (N, K, n, n), and ‖R_t‖_F at all, (N, L)."""
    # decay (N, L, n) or (N, L, 1), rows (N, L, n), wanted (L,) bool; R = 0 before the first step; O(n²) per step.
    # A scaled triangle is a triangle, so n plane rotations take in a row (Golub and Van Loan, Matrix Computations,
    # section 6.5.3). Nothing is squared that could overflow.
    N, length, n = rows.shape
    slot = torch.where(wanted, wanted.cumsum(0) - 1, -1)
    factors = torch.zeros(N, int(wanted.sum()), n, n, dtype=torch.float64)
    norms = torch.zeros(N, length, dtype=torch.float64)
    arrays = [part.detach().resolve_neg().cpu().contiguous().numpy() for part in (decay, rows, slot)]
    _carry(*arrays, factors.numpy(), norms.numpy())
    return factors.to(rows.device), norms.to(rows.device)


@_compile
def _carry(decay: Numbers, rows: Numbers, slot: npt.NDArray[np.int64], factors: Numbers, norms: Numbers) -> None:
    N, length, n = rows.shape
    R = np.empty((n, n))
    row = np.empty(n)
    for entry in range(N):
        R[:] = 0.0
        for t in range(length):
            largest = 0.0
            for k in range(n):
                for j in range(k, n):
                    R[k, j] *= decay[entry, t, j if decay.shape[2] > 1 else 0]
                row[k] = rows[entry, t, k]
            for k in range(n):
                _rotate(R[k], row, k, n)
            for k in range(n):
                for j in range(k, n):
                    largest = max(largest, abs(R[k, j]))
            if largest > 0.0:
                total = 0.0
                for k in range(n):
                    for j in range(k, n):
                        total += (R[k, j] / largest) ** 2
                norms[entry, t] = largest * math.sqrt(total)
            if slot[t] >= 0:
                # Number by number: the check of shapes in an assignment of arrays takes seconds to compile.
                for k in range(n):
                    for j in range(n):
                        factors[entry, slot[t], k, j] = R[k, j]


@_compile
def _rotate(upper: Numbers, row: Numbers, k: int, n: int) -> None:
    if row[k] == 0.0:
        return
    radius = math.hypot(upper[k], row[k])
    cosine, sine = upper[k] / radius, row[k] / radius
    for j in range(k, n):
        above = upper[j]
        upper[j] = cosine * above + sine * row[j]
        row[j] = cosine * row[j] - sine * above
