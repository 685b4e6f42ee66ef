"""All singular values of many small diagonal recurrences, several of them in lanes side by side."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from statesize.operators import Operator, Recurrence
from statesize.operators.transition import DiagonalTransition
from statesize.spectra.blocks import Counts
from statesize.spectra.bounds import UNDERFLOW, count_bounds
from statesize.spectra.cut import Cut
from statesize.spectra.effective_rank import largest
from statesize.spectra.lane_eigenvalues import Lanes, compile_lanes, eigenvalues
from statesize.spectra.spectrum import Spectrum
from statesize.spectra.square_root import propagation_error, square_root_singular_values

LARGEST_STATE = 32
# Recurrences computed side by side; fewer leave the processor's vectors half empty.
LANES = 16
# Error of the eigenvalues of MᵀM, in units of ‖M‖_F².
_SQUARED_ERROR = 4 * float(np.finfo(np.float64).eps)
# Batch entries whose singular values are computed again at once.
_RECOMPUTED_AT_ONCE = 32

PositionArray = npt.NDArray[np.int64]


def has_small_state(operator: Operator) -> bool:
    """Whether an operator is a real diagonal recurrence of at most 32 states."""
    if not isinstance(operator, Recurrence) or operator.is_complex:
        return False
    return isinstance(operator.transition, DiagonalTransition) and operator.B.shape[-1] <= LARGEST_STATE


@torch.no_grad()
def small_state_spectrum(recurrence: Recurrence, cut: Cut) -> SquaredSpectrum:
    """σ² = eig(MᵀM) with M = S_i L_i, the square-root factors carried from position to position by Givens rotations.

    Squaring once costs digits of the small σ: an error ε of σ², 4 eps ‖M‖_F², is an error of √ε = 3e-8 ‖M‖_F on a σ
    near 0. Counts compare squares, so that a tolerance τ is in doubt only within ε / 2τ of a σ; recurrences with such
    a doubt are computed again by singular value decompositions of M.

    Args:
        recurrence: Real, diagonal or scalar, of at most 32 states.
        cut: Which blocks, not windowed.

    Returns:
        The spectrum, r = min(n, the largest min(rows, columns)); without gradients.
    """
    shape, (length, states) = recurrence.batch_shape, recurrence.B.shape[-2:]
    flat = (shape.numel(), length, states)
    wide = (part.expand(*shape, length, states).reshape(flat) for part in (recurrence.A, recurrence.B, recurrence.C))
    A, B, C = (part.cpu().numpy() for part in wide)
    positions = np.unique(np.asarray(cut.positions, dtype=np.int64))
    squares = np.zeros((flat[0], positions.shape[0], states))
    norms = np.zeros((2, flat[0], length))
    _all_spectra(A, B, C, positions, squares, norms)
    device, limit = recurrence.device, cut.limits(recurrence.device)
    reach, observe = (torch.from_numpy(part).to(device).reshape(*shape, length) for part in norms)
    places = torch.tensor(cut.positions, dtype=torch.int64, device=device)
    carried = propagation_error(recurrence, reach, observe)[..., places - 1] + UNDERFLOW
    r = min(states, cut.largest_rank())
    order = torch.from_numpy(np.searchsorted(positions, np.asarray(cut.positions, dtype=np.int64)))
    squared = torch.from_numpy(squares)[:, order].sort(-1, descending=True).values.to(device)
    squared = squared.reshape(*shape, *squared.shape[1:])
    epsilon = _SQUARED_ERROR * squared.sum(-1)
    squared = squared[..., :r].masked_fill(torch.arange(r, device=device) >= limit[:, None], 0)
    return SquaredSpectrum(squared.sqrt(), epsilon.sqrt() + carried, limit, recurrence, cut, epsilon, carried)


@dataclass(frozen=True, eq=False)
class SquaredSpectrum(Spectrum):
    """Singular values from their squares, with a way back to the recurrence where that is not enough.

    Attributes:
        recurrence: What was measured.
        cut: Which blocks.
        squared_error: ε, what σ̂² may be off for having been computed as a square, (..., P).
        carried_error: What σ may be off for the round-off of the factors, (..., P).
    """

    recurrence: Recurrence
    cut: Cut
    squared_error: Tensor
    carried_error: Tensor

    def counts(self, thresholds: Tensor) -> Counts:
        """#{σ > τ} for absolute thresholds (K,)."""
        tau = thresholds.expand(*self.error_bound.shape, -1)
        return self._settled(tau, self.carried_error[..., None], lambda part: part.counts(thresholds))

    def relative_counts(self, ratios: Tensor, accuracy: float = 0.0) -> Counts:
        """#{σ > ρ σ_1} for ratios (R,)."""
        top = largest(self.values)
        # σ_1 itself is known to ε / σ_1 and what the factors lost.
        doubt = self.carried_error + self.squared_error / torch.where(top > 0, top, torch.ones_like(top))
        slack = self.carried_error[..., None] + ratios * doubt[..., None]
        return self._settled(ratios * top[..., None], slack, lambda part: part.relative_counts(ratios))

    def entropies(self, accuracy: float) -> tuple[Tensor, Tensor]:
        """Entropy-ESS to a relative accuracy and a bound on its error, both (..., P)."""
        entropy, bound = super().entropies(accuracy)
        for place, exact in self._recomputed((bound > accuracy * entropy).any(-1)):
            entropy[place], bound[place] = exact.entropies(accuracy)
        return entropy, bound

    def _settled(self, threshold: Tensor, slack: Tensor, again: Callable[[Spectrum], Counts]) -> Counts:
        squared, level = self.values.square(), threshold.square()
        doubt = self.squared_error[..., None] + (2 * threshold + slack) * slack
        count = (squared[..., None, :] > level[..., None]).sum(-1)
        lower, upper = count_bounds(squared, doubt, level, self.limit)
        for place, exact in self._recomputed((lower != upper).any(-1).any(-1)):
            found = again(exact)
            count[place], lower[place], upper[place] = found.count, found.lower, found.upper
        return Counts(count, lower, upper)

    def _recomputed(self, entries: Tensor) -> Iterator[tuple[tuple[Tensor, ...], Spectrum]]:
        """Spectra from square-root factors of some batch entries, a few at a time."""
        if entries.ndim == 0:
            if bool(entries):
                yield (), square_root_singular_values(self.recurrence, self.cut)
            return
        chosen = entries.nonzero()
        for first in range(0, chosen.shape[0], _RECOMPUTED_AT_ONCE):
            place = chosen[first : first + _RECOMPUTED_AT_ONCE].unbind(-1)
            yield place, square_root_singular_values(self.recurrence[place], self.cut)


@compile_lanes
def _all_spectra(A: Lanes, B: Lanes, C: Lanes, positions: PositionArray, squares: Lanes, norms: Lanes) -> None:
    entries, length, n = A.shape
    W = LANES
    S = np.zeros((length + 1, n * (n + 1) // 2, W))
    L = np.zeros((n * (n + 1) // 2, W))
    M, G = np.empty((n, n, W)), np.empty((n, n, W))
    a, v = np.empty((n, W)), np.empty((n, W))
    d, e2, work = np.zeros((n, W)), np.zeros((n, W)), np.empty((2 * n + 8, W))
    for first in range(0, entries, W):
        for t in range(length - 1, 0, -1):
            S[t] = S[t + 1]
            _load(C, first, t, v)
            _append(S[t], v, work)
            _load(A, first, t, a)
            _scale(S[t], a)
            _store_norm(S[t], norms[1], first, t - 1, work)
        L[:] = 0.0
        place = 0
        for t in range(1, length):
            _load(A, first, t - 1, a)
            _scale(L, a)
            _load(B, first, t - 1, v)
            _append(L, v, work)
            _store_norm(L, norms[0], first, t, work)
            if place < positions.shape[0] and positions[place] == t:
                _square(S[t], L, M, G, work)
                eigenvalues(G, d, e2, work)
                for w in range(min(W, entries - first)):
                    for i in range(n):
                        squares[first + w, place, i] = max(d[i, w], 0.0)
                place += 1


@compile_lanes
def _load(source: Lanes, first: int, t: int, target: Lanes) -> None:
    n, W = target.shape
    for w in range(W):
        entry = min(first + w, source.shape[0] - 1)
        for i in range(n):
            target[i, w] = source[entry, t, i]


@compile_lanes
def _append(R: Lanes, row: Lanes, work: Lanes) -> None:
    # R of qr([R; row]) by Givens rotations; R upper triangular, packed by rows. The row is destroyed.
    n, W = row.shape
    cosine, sine = work[0], work[1]
    k = 0
    for r in range(n):
        for w in range(W):
            x, y = R[k, w], row[r, w]
            h = math.sqrt(x * x + y * y)
            inverse = 1.0 / h if h > 0.0 else 0.0
            cosine[w] = x * inverse if h > 0.0 else 1.0
            sine[w] = y * inverse
            R[k, w] = h
        k += 1
        for i in range(r + 1, n):
            for w in range(W):
                p, q = R[k, w], row[i, w]
                R[k, w] = cosine[w] * p + sine[w] * q
                row[i, w] = cosine[w] * q - sine[w] * p
            k += 1


@compile_lanes
def _scale(R: Lanes, a: Lanes) -> None:
    n, W = a.shape
    k = 0
    for r in range(n):
        for i in range(r, n):
            for w in range(W):
                R[k, w] *= a[i, w]
            k += 1


@compile_lanes
def _store_norm(R: Lanes, norms: Lanes, first: int, place: int, work: Lanes) -> None:
    total = work[0]
    total[:] = 0.0
    for k in range(R.shape[0]):
        for w in range(R.shape[1]):
            total[w] += R[k, w] * R[k, w]
    for w in range(min(R.shape[1], norms.shape[0] - first)):
        norms[first + w, place] = math.sqrt(total[w])


@compile_lanes
def _square(S: Lanes, L: Lanes, M: Lanes, G: Lanes, work: Lanes) -> None:
    # M = S Lᵀ for packed upper triangles S and L, and the lower triangle of G = MᵀM.
    n, W = M.shape[0], M.shape[2]
    x = work[0]
    for i in range(n):
        for j in range(n):
            least = max(i, j)
            s = i * n - i * (i - 1) // 2 + least - i
            f = j * n - j * (j - 1) // 2 + least - j
            for w in range(W):
                x[w] = 0.0
            for k in range(n - least):
                for w in range(W):
                    x[w] += S[s + k, w] * L[f + k, w]
            for w in range(W):
                M[i, j, w] = x[w]
    for i in range(n):
        for j in range(i + 1):
            for w in range(W):
                x[w] = 0.0
            for k in range(n):
                for w in range(W):
                    x[w] += M[k, i, w] * M[k, j, w]
            for w in range(W):
                G[i, j, w] = x[w]
