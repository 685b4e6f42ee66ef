"""Compiled eliminations of K = [a I, H; Hᵀ, c I] for the blocks H of a chunk of positions, and their largest values.

K has as many negative pivots as H has σ² > a c. Rows after the chunk have the pivot a alone and leave c I − Θ / a on
the columns before it, which is tridiagonal; its elimination leaves a matrix S of the chunk's own rows and columns. The
block at the j-th of b positions has the rows from j on and the columns before j, so rows stand in reverse order and
both are the first of theirs in S.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple, TypeAlias, cast

import numba
import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[np.float64]
Places: TypeAlias = npt.NDArray[np.int64]
Flags: TypeAlias = npt.NDArray[np.bool_]

_compile = cast("Any", numba).njit(cache=True, nogil=True, fastmath={"contract", "reassoc"}, error_model="numpy")
# Products with HᵀH that a largest singular value takes at most, and after how many it is looked at.
_MOST, _EVERY = 60, 3
# Residuals of HᵀH at which it is taken, relative to σ_1²; its own error is about the square of that.
_CONVERGED = 1e-5


class Cores(NamedTuple):
    """N chunks of b positions with r rows and c columns each, and what they leave of what lies outside.

    Attributes:
        first: Where the p columns before each chunk begin in the next three, (N + 1,).
        diagonal: Of the tridiagonal Θ = Qᵀ FᵀF Q of these columns F in the rows after the chunk, (Σp,).
        beside: Below the diagonal, a 0 last, (Σp,).
        borders: Qᵀ Rᵀ of the chunk's rows R in the columns before it, the last row first, and Qᵀ FᵀF' of its own
            columns F', (Σp, r b + c b).
        inside: T inside the chunk, the last row first, (N, r b, c b).
        gram: F'ᵀF', (N, c b, c b).
        chunk: In which chunk each wanted position lies, ascending, (Q,).
        rows: How many of the chunk's rows the block there has, (Q,).
        columns: How many of its columns, ascending within a chunk, (Q,).
    """

    first: Places
    diagonal: Array
    beside: Array
    borders: Array
    inside: Array
    gram: Array
    chunk: Places
    rows: Places
    columns: Places


Core: TypeAlias = tuple[Array, Array, Array, Array, Array]
"""The arrays of one chunk, in the order of `Cores`."""


@_compile
def _core(cores: Cores, k: int) -> Core:
    begin, end = cores.first[k], cores.first[k + 1]
    diagonal, beside, borders = cores.diagonal[begin:end], cores.beside[begin:end], cores.borders[begin:end]
    return diagonal, beside, borders, cores.inside[k], cores.gram[k]


@_compile
def energies(cores: Cores, squares: Array) -> None:
    """‖H‖_F² at each position, (Q,)."""
    for query in range(cores.chunk.shape[0]):
        diagonal, _, borders, inside, gram = _core(cores, cores.chunk[query])
        total = diagonal.sum()
        for q in range(diagonal.shape[0]):
            for k in range(cores.rows[query]):
                total += borders[q, k] * borders[q, k]
        for j in range(cores.columns[query]):
            total += gram[j, j]
            for i in range(cores.rows[query]):
                total += inside[i, j] * inside[i, j]
        squares[query] = total


@_compile
def _schur(core: Core, rows: int, columns: int, a: float, c: float) -> tuple[Array, int, float, float]:
    """S of the first rows and columns; of the core's pivots d the number below 0, Σ ln |d / a|, and what adds up."""
    diagonal, beside, borders, inside, gram = core
    p, n, all_rows = diagonal.shape[0], rows + columns, inside.shape[0]
    Y, Z, S = np.empty((p, n)), np.empty((p, n)), np.zeros((n, n))
    negative, logarithm, product, size, inverse, coupling, scale = 0, 0.0, 1.0, 0.0, 0.0, 0.0, 1 / a
    for q in range(p):
        multiplier = coupling * inverse
        d = c - diagonal[q] * scale - multiplier * coupling
        size += abs(multiplier * coupling) + abs(d)
        inverse = 1 / d
        negative += d < 0
        # Few logarithms are taken.
        product *= abs(d * scale)
        if not 1e-100 < product < 1e100:
            logarithm, product = logarithm + math.log(product), 1.0
        coupling = -beside[q] * scale
        for k in range(rows):
            Y[q, k] = borders[q, k]
        for k in range(columns):
            Y[q, rows + k] = -borders[q, all_rows + k] * scale
        square = 0.0
        if q:
            for k in range(n):
                Y[q, k] -= multiplier * Y[q - 1, k]
        for k in range(n):
            Z[q, k] = -Y[q, k] * inverse
            square += Y[q, k] * Y[q, k]
        size += square * abs(inverse)
    if p:
        S += np.dot(Y.T, Z)
    for i in range(rows):
        S[i, i] += a
        for j in range(columns):
            S[i, rows + j] += inside[i, j]
    for i in range(columns):
        for j in range(i, columns):
            S[rows + i, rows + j] -= gram[i, j] * scale
        S[rows + i, rows + i] += c
    return S, negative, logarithm + math.log(product), size


@_compile
def _take(S: Array, q: int, n: int) -> float:
    """Eliminate the q-th of n rows of an upper triangle; returns what adds up."""
    inverse, size = 1 / S[q, q], abs(S[q, q])
    for i in range(q + 1, n):
        factor = S[q, i] * inverse
        size += abs(factor * S[q, i])
        for j in range(i, n):
            S[i, j] -= factor * S[q, j]
    return size


@_compile
def count_above(cores: Cores, shifts: Array, counts: Places, sizes: Array) -> None:
    """#{σ > τ} at each position for shifts of its own, (Q, K), and what adds up in each elimination."""
    for query in range(shifts.shape[0]):
        core, n = _core(cores, cores.chunk[query]), cores.rows[query] + cores.columns[query]
        for k in range(shifts.shape[1]):
            tau = shifts[query, k]
            S, negative, _, size = _schur(core, cores.rows[query], cores.columns[query], tau, tau)
            for q in range(n):
                size += _take(S, q, n)
                negative += S[q, q] < 0
            counts[query, k], sizes[query, k] = negative, size


@_compile
def log_determinants(cores: Cores, wanted: Flags, shifts: Array, logarithms: Array) -> None:
    """Σ ln(1 + σ² / τ²) at each position of the wanted chunks, (N,), for shifts of each chunk, (N, K), into (Q, K)."""
    rows, columns = cores.inside.shape[1:]
    B = np.empty((columns, columns))
    for k in range(shifts.shape[1]):
        # From the last position to the first: with each, a block has more of the chunk's rows.
        chunk, taken, before = -1, 0, 0.0
        S = B
        for query in range(cores.chunk.shape[0] - 1, -1, -1):
            if not wanted[cores.chunk[query]]:
                continue
            tau = shifts[cores.chunk[query], k]
            if cores.chunk[query] != chunk:
                chunk, taken = cores.chunk[query], 0
                S, _, before, _ = _schur(_core(cores, chunk), rows, columns, tau, -tau)
            for q in range(taken, cores.rows[query]):
                _take(S, q, rows + columns)
                before += math.log(abs(S[q, q] / tau))
            taken, n = cores.rows[query], cores.columns[query]
            for i in range(n):
                for j in range(i, n):
                    B[i, j] = S[rows + i, rows + j]
            total, product = before, 1.0
            for q in range(n):
                _take(B, q, n)
                product *= abs(B[q, q] / tau)
                if not product < 1e100:
                    total, product = total + math.log(product), 1.0
            logarithms[query, k] = total + math.log(product)


@_compile
def _gram_times(core: Core, rows: int, columns: int, v: Array, product: Array) -> None:
    """HᵀH v, of which the first p are in the basis of the core."""
    diagonal, beside, borders, inside, gram = core
    p, all_rows = diagonal.shape[0], inside.shape[0]
    images, left = np.zeros(rows), np.zeros(columns)
    for q in range(p):
        for k in range(rows):
            images[k] += borders[q, k] * v[q]
        for k in range(columns):
            left[k] += borders[q, all_rows + k] * v[q]
    for i in range(rows):
        for j in range(columns):
            images[i] += inside[i, j] * v[p + j]
    for j in range(columns):
        for i in range(rows):
            left[j] += inside[i, j] * images[i]
        for i in range(columns):
            left[j] += gram[min(i, j), max(i, j)] * v[p + i]
        product[p + j] = left[j]
    for q in range(p):
        total = diagonal[q] * v[q]
        if q:
            total += beside[q - 1] * v[q - 1]
        if q + 1 < p:
            total += beside[q] * v[q + 1]
        for k in range(rows):
            total += borders[q, k] * images[k]
        for k in range(columns):
            total += borders[q, all_rows + k] * v[p + k]
        product[q] = total


@_compile
def _top(alpha: Array, beta: Array, m: int, weights: Array) -> float:
    """The largest eigenvalue of a tridiagonal matrix, by Newton's method from above, and its vector."""
    x = 0.0
    for k in range(m):
        x = max(x, alpha[k] + (beta[k - 1] if k else 0.0) + (beta[k] if k + 1 < m else 0.0))
    for _ in range(100):
        # The logarithmic derivative of the characteristic polynomial, by its pivots and their derivatives.
        pivot, slope, total = 1.0, 0.0, 0.0
        for k in range(m):
            square = beta[k - 1] * beta[k - 1] if k else 0.0
            slope = 1 + square * slope / (pivot * pivot)
            pivot = x - alpha[k] - square / pivot
            total += slope / pivot
        if not pivot > 0 or 1 / total < 1e-14 * x:
            break
        x -= 1 / total
    weights[m - 1], square = 1.0, 1.0
    for k in range(m - 2, -1, -1):
        weights[k] = (x - alpha[k + 1]) * weights[k + 1]
        if k + 2 < m:
            weights[k] -= beta[k + 1] * weights[k + 2]
        weights[k] /= beta[k]
        square += weights[k] * weights[k]
    for k in range(m):
        weights[k] /= math.sqrt(square)
    return x


@_compile
def largest_values(cores: Cores, largest: Array) -> None:
    """σ_1 at each position, (Q,), by Lanczos' method from the vector of the one before, or NaN where it takes long."""
    alpha, beta, weights = np.zeros(_MOST), np.zeros(_MOST), np.zeros(_MOST)
    V, w, start = np.zeros((1, 1)), np.zeros(1), np.zeros(1)
    chunk, m = -1, 0
    for query in range(cores.chunk.shape[0]):
        core = _core(cores, cores.chunk[query])
        if cores.chunk[query] != chunk:
            chunk, longest = cores.chunk[query], core[0].shape[0] + core[4].shape[0]
            V, w, start = np.zeros((_MOST + 1, longest)), np.empty(longest), np.ones(longest)
        n, value = core[0].shape[0] + cores.columns[query], math.nan
        norm = math.sqrt((start[:n] ** 2).sum())
        for k in range(n):
            V[0, k] = start[k] / norm
        for m in range(1, _MOST + 1):
            _gram_times(core, cores.rows[query], cores.columns[query], V[m - 1], w)
            inner, square = 0.0, 0.0
            for k in range(n):
                inner += w[k] * V[m - 1, k]
            alpha[m - 1] = inner
            for k in range(n):
                w[k] -= inner * V[m - 1, k]
                if m > 1:
                    w[k] -= beta[m - 2] * V[m - 2, k]
                square += w[k] * w[k]
            residual = math.sqrt(square)
            done = residual <= 1e-12 * alpha[0] or m == n
            if done or m % _EVERY == 0:
                top = _top(alpha, beta, m, weights)
                if done or residual * abs(weights[m - 1]) <= _CONVERGED * top:
                    value = math.sqrt(top)
                    break
            beta[m - 1] = residual
            for k in range(n):
                V[m, k] = w[k] / residual
        largest[query] = value
        # Directions that a later block has and this one lacks need some weight.
        start[:] = 1e-3 / math.sqrt(n)
        for i in range(m):
            for k in range(n):
                start[k] += weights[i] * V[i, k]
