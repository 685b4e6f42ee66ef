"""Compiled square-root factors of 32 diagonal recurrences side by side.

The last dimension of arrays counts the recurrences, so that loops over it become vector instructions.
"""

from __future__ import annotations

import math
from typing import Any, TypeAlias, cast

import numba
import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[np.float64]

LANES = 32
"""Recurrences side by side."""
_compile = cast("Any", numba).njit(cache=True, nogil=True, fastmath={"contract"}, error_model="numpy")
_EPS = 2.0**-52


@_compile
def _append(R: Array, row: Array, decay: Array, turn: Array) -> None:
    """R of qr([R Diag(decay); row]) in place; R (n, n, W), row and decay (n, W), of which the row is lost."""
    # Plane rotations take in a row (Golub and Van Loan, Matrix Computations, section 6.5.3). Loops over slices become
    # vector instructions.
    n, lanes = row.shape
    for k in range(n):
        factor, other, scale, cosine, sine = R[k, k], row[k], decay[k], turn[0], turn[1]
        for w in range(lanes):
            x, y = factor[w] * scale[w], other[w]
            radius = math.sqrt(x * x + y * y)
            inverse = 1 / radius if radius > 0 else 0.0
            cosine[w], sine[w] = x * inverse if radius > 0 else 1.0, y * inverse
            factor[w] = radius
        for j in range(k + 1, n):
            factor, other, scale = R[k, j], row[j], decay[j]
            for w in range(lanes):
                x, y = factor[w] * scale[w], other[w]
                factor[w] = cosine[w] * x + sine[w] * y
                other[w] = cosine[w] * y - sine[w] * x


@_compile
def _step(source: tuple[Array, Array], first: int, t: int, past: bool, state: tuple[Array, ...]) -> None:
    """Take step t into the factors, and into bounds of their norms and of their errors."""
    (A, rows), (R, a, row, turn, norm, error) = source, state
    n, lanes = row.shape
    for w in range(lanes):
        entry, square, gain = min(first + w, A.shape[0] - 1), 0.0, 0.0
        for k in range(n):
            a[k, w], row[k, w] = A[entry, t, k], rows[entry, t, k]
            square += row[k, w] * row[k, w]
            gain = max(gain, abs(a[k, w]))
            if not past:
                # C_t enters the state before A_t takes it on.
                row[k, w] *= a[k, w]
        before = gain * norm[w]
        norm[w] = math.hypot(before, math.sqrt(square) * (1.0 if past else gain))
        error[w] = gain * error[w] + 2 * (n + 1) * _EPS * (norm[w] + before)
    _append(R, row, a, turn)


@_compile
def factor_products(
    A: Array, B: Array, C: Array, positions: npt.NDArray[np.int64], products: Array, errors: Array
) -> None:
    """S_i L_iᵀ at ascending positions, (E, P, n, n), and how far σ may be off, (E, P), from A, B, C (E, L, n)."""
    (E, length, n), P = B.shape, positions.shape[0]
    lanes = min(LANES, E)
    for first in range(0, E, lanes):
        factors, norms, lost = np.empty((P, n, n, lanes)), np.empty((P, lanes)), np.empty((P, lanes))
        R, norm, error, total = np.zeros((n, n, lanes)), np.zeros(lanes), np.zeros(lanes), np.zeros(lanes)
        state = R, np.empty((n, lanes)), np.empty((n, lanes)), np.empty((2, lanes)), norm, error
        k = P - 1
        for t in range(length - 1, positions[0] - 1, -1):
            _step((A, C), first, t, False, state)
            if positions[k] == t:
                factors[k], norms[k], lost[k] = R, norm, error
                k -= 1
        R[:], norm[:], error[:] = 0.0, 0.0, 0.0
        k = 0
        for t in range(1, positions[P - 1] + 1):
            _step((A, B), first, t - 1, True, state)
            if positions[k] == t:
                for i in range(n):
                    for j in range(n):
                        total[:] = 0.0
                        for m in range(max(i, j), n):
                            for w in range(lanes):
                                total[w] += factors[k, i, m, w] * R[j, m, w]
                        for w in range(min(lanes, E - first)):
                            products[first + w, k, i, j] = total[w]
                for w in range(min(lanes, E - first)):
                    size = norm[w] * norms[k, w]
                    off = norms[k, w] * error[w] + norm[w] * lost[k, w] + 2 * (n + 1) * _EPS * size
                    errors[first + w, k] = off + (1e-150 if size > 0 else 0.0)
                k += 1
