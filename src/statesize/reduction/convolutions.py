"""Time-invariant recurrences of convolutions, from the Hankel matrix of the middle position or by balanced truncation.

Both are x_{t+1} = A x_t + B u_t, y_t = C x_t, so that k_{1+n} = C Aⁿ B. The first (Ho and Kalman, 1966) takes the left
singular vectors U of H_{L/2}: A shifts their rows by one, C is the first row, and B is the least-squares fit to all
taps. The second truncates the shift register of the kernel in balanced coordinates: with the eigenvectors of the
Hankel matrix of all N taps, ‖T − T_r‖₂ ≤ 2 Σ dropped σ for inputs of any length (Glover, 1984).
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn.functional import pad

from statesize.check import refuse
from statesize.operators import Convolution
from statesize.spectra.spectrum import ROUND_OFF

_linalg, _fft = cast("Any", torch.linalg), cast("Any", torch.fft)
_EPSILON = torch.finfo(torch.float64).eps
# Relative threshold of the rank of H_{L/2}; the error of an exact realisation, at most, in units of its σ_1; and
# round-off of the transform, far below √N · log₂ N · eps.
_RANK_TOLERANCE, _EXACT, _SLACK = 1e-12, 1e-9, 1e-10


@dataclass(frozen=True, eq=False)
class Realisation:
    """States of E kernels, with a bound on ‖T − T_r‖₂, (E,), and the σ of the decomposed Hankel matrix."""

    A: Tensor  # (E, r, r)
    B: Tensor  # (E, r)
    C: Tensor  # (E, r)
    bound: Tensor
    singular_values: Tensor
    method: str = "ho_kalman"


def realise(operator: Convolution, state_size: int | None, tolerance: float | None) -> Realisation:
    """The nearer realisation of a size, or the smallest within a tolerance, or the exact one."""
    stored = operator.kernel[..., 1 : operator.length].double().reshape(operator.batch_shape.numel(), -1)
    lags = pad(stored, (0, operator.length - 1 - stored.shape[-1]))
    used = (lags != 0).any(0).nonzero()
    if not used.numel():
        nothing = lags.new_zeros(len(lags), 0)
        return Realisation(nothing[..., None].expand(-1, 0, 0), nothing, nothing, nothing.sum(-1), nothing)
    taps = int(used.max()) + 1
    # With as many zeros behind the last tap as taps, a longer sequence adds nothing.
    middle, register = _MiddleHankel(lags, lags[:, : 2 * taps]), _ShiftRegister(lags, lags[:, :taps])
    if state_size is not None:
        nearest = middle.realised(min(state_size, middle.most)), register.truncated(min(state_size, taps))
        return min(nearest, key=lambda found: float(found.bound.amax()))
    if tolerance is None:
        exact = middle.realised(middle.most)
        close = middle.determined and bool((exact.bound <= _EXACT * exact.singular_values[:, 0]).all())
        return exact if close else register.truncated(taps)
    sufficient = (register.bounds <= tolerance).all(0).nonzero()
    if not sufficient.numel():
        least = float(register.bounds.amin(-1).amax())
        advice = "Give no tolerance for the exact recurrence."
        refuse("tolerance", f"at least {least:.2g}, the round-off of these kernels", tolerance, advice)
    most = min(int(sufficient[0]), middle.most + 1)
    # Every recurrence nearer than σ_{r+1} of H_{L/2} has more than r states.
    sizes = range(min(int((middle.values > tolerance).sum(-1).amax()), most), most)
    fewest = bisect_left(sizes, True, key=lambda states: bool((middle.realised(states).bound <= tolerance).all()))
    return register.truncated(int(sufficient[0])) if fewest == len(sizes) else middle.realised(sizes[fewest])


class _MiddleHankel:
    """H_{L/2} of kernels k_1 … k_M, (E, M), M ≥ 1."""

    def __init__(self, lags: Tensor, kernel: Tensor) -> None:
        self._lags, self._kernel = lags, kernel
        hankel = kernel.unfold(-1, (kernel.shape[-1] + 1) // 2, 1)
        self._vectors, self.values, _ = _linalg.svd(hankel, full_matrices=False)
        self._ranks = (self.values > _RANK_TOLERANCE * self.values[:, :1]).sum(-1)
        rank, shift = int(self._ranks.amax()), min(self.values.shape[-1], self._vectors.shape[-2] - 1)
        self.determined, self.most = rank <= shift, min(rank, shift)

    def realised(self, states: int) -> Realisation:
        """The r ≤ `most` states of the largest singular values; those above the rank of a kernel are idle."""
        active = torch.arange(states, device=self.values.device) < self._ranks[:, None]
        U = self._vectors[..., :states] * active[:, None]
        # Balance the states: equal reachability and observability.
        root = torch.where(active, self.values[:, :states], 1).sqrt()
        A = (_linalg.pinv(U[:, :-1]) @ U[:, 1:]) * root[:, None] / root[..., None]
        C = U[:, 0] * root
        rows = _powers(A.mT, C, self._kernel.shape[-1]).nan_to_num(0, 0, 0)
        B = (_linalg.pinv(rows) @ self._kernel[..., None]).squeeze(-1)
        return Realisation(A, B, C, _distance(A, B, C, self._lags), self.values)


class _ShiftRegister:
    """The shift register of kernels k_1 … k_N, (E, N), in balanced coordinates."""

    def __init__(self, lags: Tensor, kernel: Tensor) -> None:
        self._lags, taps = lags, kernel.shape[-1]
        eigenvalues, vectors = _linalg.eigh(pad(kernel, (0, taps)).unfold(-1, taps, 1)[..., :taps, :])
        self._values, order = eigenvalues.abs().sort(-1, descending=True)
        self._vectors = vectors.gather(-1, order[:, None].expand_as(vectors))
        self._signs = eigenvalues.gather(-1, order).sign()
        tail = pad(self._values, (0, 1)).flip(-1).cumsum(-1).flip(-1)
        # 2 Σ dropped σ, each of which round-off may change, for r = 0 … N states, (E, N + 1).
        self.bounds = 2 * (tail + taps * ROUND_OFF * _EPSILON * self._values[:, :1])

    def truncated(self, states: int) -> Realisation:
        """The first r ≤ N states; states with σ = 0 are idle."""
        Q, sigma = self._vectors[..., :states], self._values[:, :states]
        root = torch.where(sigma > 0, sigma, 1).sqrt()
        A = (Q[:, :-1].mT @ Q[:, 1:]) * root[:, None] / root[..., None]
        C = torch.where(sigma > 0, Q[:, 0], 0) * root
        B = C * self._signs[:, :states]
        bound = torch.minimum(self.bounds[:, states], _distance(A, B, C, self._lags))
        return Realisation(A, B, C, bound, self._values, "balanced")


def _distance(A: Tensor, B: Tensor, C: Tensor, lags: Tensor) -> Tensor:
    """A bound on the distance of C Aⁿ B from k_1 … k_{L−1}, as operators, (E,); infinite where powers overflow."""
    # The round-off of a step x_{t+1} = A x_t + B u_t is at most γ (|A| |x_t| + |B| |u_t|) in each entry, and C Aˢ maps
    # it to the output s steps later. The bound contains this twice: for the taps computed here, and for the steps of a
    # user.
    states, rows = _powers(A, B, lags.shape[-1]), _powers(A.mT, C, lags.shape[-1])
    norm = circulant_norm((states @ C[..., None]).squeeze(-1) - lags)
    step_errors = torch.cat([B[:, None].abs(), states[:, :-1].abs() @ A.mT.abs()], -2)
    sensitivity = rows.abs().cumsum(-2).flip(-2)
    error = (step_errors * sensitivity).sum((-2, -1)) + (states.abs() @ C[..., None].abs()).sum((-2, -1))
    return (norm + (B.shape[-1] + 2) * _EPSILON * error).nan_to_num(nan=torch.inf)


def _powers(A: Tensor, x: Tensor, count: int) -> Tensor:
    """Aᵗ x for t < count, (E, count, r), in steps: more accurate than by squaring if A has large entries."""
    states = [x]
    for _ in range(count - 1):
        states.append((A @ states[-1][..., None]).squeeze(-1))
    return torch.stack(states, -2)


def circulant_norm(kernel: Tensor) -> Tensor:
    """An upper bound on ‖T‖₂, and on σ_1 of T[i:, :i] for all i, (...), T of the kernel k_1 … k_{L−1}, (..., L − 1)."""
    # T is a part of a circulant matrix of any order N ≥ 2 L, whose norm is max |DFT_N|.
    spectrum: Tensor = _fft.rfft(kernel, 1 << (2 * kernel.shape[-1]).bit_length())
    return spectrum.abs().amax(-1) * (1 + _SLACK)
