"""Time-invariant recurrences of convolutions, from the Hankel matrix of the middle position or by balanced truncation.

Both are x_{t+1} = A x_t + B u_t, y_t = C x_t, so that k_{1+n} = C Aⁿ B. The first (Ho and Kalman, 1966) takes the left
singular vectors U of H_{L/2}: A shifts their rows by one, C is the first row, and B is the least-squares fit to all
taps. The second truncates the shift register of the kernel in balanced coordinates: with the singular vectors of the
Hankel matrix of all N taps, ‖T − T_r‖₂ ≤ 2 Σ dropped σ for inputs of any length (Glover, 1984).
"""

from __future__ import annotations

from bisect import bisect_left
from itertools import accumulate
from typing import Any, NamedTuple, cast

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


class Realisation(NamedTuple):
    """States of E kernels, with a bound on ‖T − T_r‖₂, (E,), and the σ of the decomposed Hankel matrix."""

    A: Tensor  # (E, r, r)
    B: Tensor  # (E, r)
    C: Tensor  # (E, r)
    bound: Tensor
    singular_values: Tensor
    method: str


def realise(operator: Convolution, state_size: int | None, tolerance: float | None) -> Realisation:
    """The nearer realisation of a size, or the smallest within a tolerance, or the exact one."""
    stored = operator.kernel[..., 1 : operator.length].double().reshape(operator.batch_shape.numel(), -1)
    lags = pad(stored, (0, max(1, operator.length - 1) - stored.shape[-1]))
    taps = 1 + int(((lags != 0).any(0) * torch.arange(lags.shape[-1], device=lags.device)).max())
    # With as many zeros behind the last tap as taps, a longer sequence adds nothing.
    middle, register = _Hankel(lags, lags[:, : 2 * taps], zeros=False), _Hankel(lags, lags[:, :taps], zeros=True)
    if state_size is not None:
        nearest = middle.realised(min(state_size, middle.most)), register.realised(min(state_size, taps))
        return min(nearest, key=lambda found: float(found.bound.amax()))
    if tolerance is None:
        exact = middle.realised(middle.most)
        close = bool((exact.bound <= _EXACT * exact.singular_values[:, 0]).all())
        return exact if close else register.realised(taps)
    sufficient = (register.bounds <= tolerance).all(0).nonzero()
    if not sufficient.numel():
        least = f"at least {float(register.bounds.amin(-1).amax()):.2g}, the round-off of these kernels"
        refuse("tolerance", least, tolerance, "Give no tolerance for the exact recurrence.")
    most = min(int(sufficient[0]), middle.most + 1)
    # Every recurrence nearer than σ_{r+1} of H_{L/2} has more than r states.
    sizes = range(min(int((middle.values > tolerance).sum(-1).amax()), most), most)
    fewest = bisect_left(sizes, True, key=lambda states: bool((middle.realised(states).bound <= tolerance).all()))
    return register.realised(int(sufficient[0])) if fewest == len(sizes) else middle.realised(sizes[fewest])


class _Hankel:
    """A Hankel matrix of kernels k_1 … k_M, (E, M): H_{L/2}, or that of all taps and zeros behind."""

    def __init__(self, lags: Tensor, kernel: Tensor, *, zeros: bool) -> None:
        self._lags, self._kernel, self._zeros, taps = lags, kernel, zeros, kernel.shape[-1]
        rows = pad(kernel, (0, taps - 1)).unfold(-1, taps, 1) if zeros else kernel.unfold(-1, (taps + 1) // 2, 1)
        self._left, self.values, self._right = _linalg.svd(rows, full_matrices=False)
        self._active = self.values > (0 if zeros else _RANK_TOLERANCE) * self.values[:, :1]
        self.most = min(int(self._active.sum(-1).amax()), rows.shape[-2] - 1)
        # 2 Σ dropped σ, each of which round-off may change, for r = 0 … N states, (E, N + 1).
        tail = pad(self.values, (0, 1)).flip(-1).cumsum(-1).flip(-1)
        self.bounds = 2 * (tail + taps * ROUND_OFF * _EPSILON * self.values[:, :1])

    def realised(self, states: int) -> Realisation:
        """The states of the largest singular values, at most `most` of H_{L/2}; above a kernel's rank they are idle."""
        active = self._active[:, :states]
        # Balance the states: equal reachability and observability.
        U, root = self._left[..., :states] * active[:, None], torch.where(active, self.values[:, :states], 1).sqrt()
        inverse = U[:, :-1].mT if self._zeros else _linalg.pinv(U[:, :-1])
        A, C = (inverse @ U[:, 1:]) * root[:, None] / root[..., None], U[:, 0] * root
        if self._zeros:
            B = torch.where(active, self._right[:, :states, 0], 0) * root
            bound = torch.minimum(self.bounds[:, states], _distance(A, B, C, self._lags))
            return Realisation(A, B, C, bound, self.values, "balanced")
        rows = _powers(A.mT, C, self._kernel.shape[-1]).nan_to_num(0, 0, 0)
        B = (_linalg.pinv(rows) @ self._kernel[..., None]).squeeze(-1)
        return Realisation(A, B, C, _distance(A, B, C, self._lags), self.values, "ho_kalman")


def _distance(A: Tensor, B: Tensor, C: Tensor, lags: Tensor) -> Tensor:
    """A bound on the distance of C Aⁿ B from k_1 … k_{L−1}, as operators, (E,); infinite where powers overflow."""
    # Round-off of x_{t+1} = A x_t + B u_t is at most γ (|A| |x_t| + |B| |u_t|) in each entry, and C Aˢ maps it to the
    # output s steps later. It is contained twice: for the taps computed here, and for the steps of a user.
    states, rows = _powers(A, B, lags.shape[-1]), _powers(A.mT, C, lags.shape[-1])
    # T is a part of a circulant matrix of any order N ≥ 2 L, whose norm is max |DFT_N|.
    off = _fft.rfft((states @ C[..., None]).squeeze(-1) - lags, 1 << (2 * lags.shape[-1]).bit_length())
    step_errors = torch.cat([B[:, None].abs(), states[:, :-1].abs() @ A.mT.abs()], -2)
    sensitivity = rows.abs().cumsum(-2).flip(-2)
    error = (step_errors * sensitivity).sum((-2, -1)) + (states.abs() @ C[..., None].abs()).sum((-2, -1))
    return (off.abs().amax(-1) * (1 + _SLACK) + (B.shape[-1] + 2) * _EPSILON * error).nan_to_num(nan=torch.inf)


def _powers(A: Tensor, x: Tensor, count: int) -> Tensor:
    """Aᵗ x for t < count, (E, count, r), in steps: more accurate than by squaring if A has large entries."""
    states = accumulate(range(count - 1), lambda state, _: (A @ state[..., None]).squeeze(-1), initial=x)
    return torch.stack(list(states), -2)
