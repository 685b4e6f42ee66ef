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

_compile = cast("Any", numba).njit(cache=True, nogil=True, fastmath={"contract", "reassoc"}, error_model="numpy")
# Inlined before types are found, which takes less time than to compile each function and then all that call it.
_inline = cast("Any", numba).njit(inline="always")
# Pivots that are multiplied before a logarithm is taken.
_FACTORS = 8
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
        energies: ‖H‖_F² at each wanted position, (Q,).
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
    energies: Array
    chunk: Places
    rows: Places
    columns: Places


Core: TypeAlias = tuple[Array, Array, Array, Array, Array]
"""The arrays of one chunk, in the order of `Cores`."""


@_inline
def _core(cores: Cores, k: int) -> Core:
    begin, end = cores.first[k], cores.first[k + 1]
    diagonal, beside, borders = cores.diagonal[begin:end], cores.beside[begin:end], cores.borders[begin:end]
    return diagonal, beside, borders, cores.inside[k], cores.gram[k]


@_inline
def _core_pivots(core: Core, a: Array, sign: int, pivots: Array, found: Array) -> None:
    """The core at K shifts: multipliers and 1 / d of its pivots d, (2, p, K), and what these add up to, (3, K)."""
    diagonal, beside, count = core[0], core[1], a.shape[0]
    scale, coupling, product = 1 / a, np.zeros(count), np.ones(count)
    found[:] = 0
    for q in range(diagonal.shape[0]):
        factor, inverse, before = pivots[0, q], pivots[1, q], pivots[1, max(q - 1, 0)]
        for k in range(count):
            factor[k] = coupling[k] * before[k] if q else 0.0
            d = sign * a[k] - diagonal[q] * scale[k] - factor[k] * coupling[k]
            found[0, k] += d < 0
            found[2, k] += abs(factor[k] * coupling[k]) + abs(d)
            inverse[k] = 1 / d
            product[k] *= abs(d * scale[k])
            coupling[k] = -beside[q] * scale[k]
        if q % _FACTORS == 0 or q + 1 == diagonal.shape[0]:
            for k in range(count):
                found[1, k] += math.log(product[k])
                product[k] = 1.0


@_inline
def _solve(borders: Array, first: int, pivots: Array, Y: Array, Z: Array) -> float:
    """Y = M⁻¹ W for the core's M D Mᵀ and n of its borders W from one on, Z = D⁻¹ Y, (p, n) each, and Σ |Y Z|."""
    # Loops over slices from 0 on become vector instructions, those from elsewhere on do not.
    n = Y.shape[1]
    solved, sizes = np.zeros(n), np.zeros(n)
    for q in range(Y.shape[0]):
        border, y, z, factor, inverse = borders[q, first : first + n], Y[q], Z[q], pivots[0, q], pivots[1, q]
        for k in range(n):
            solved[k] = border[k] - factor * solved[k]
        for k in range(n):
            y[k] = solved[k]
            z[k] = solved[k] * inverse
            sizes[k] += abs(solved[k] * z[k])
    size = 0.0
    for k in range(n):
        size += sizes[k]
    return size


@_inline
def _place(core: Core, rows: int, columns: int, a: float, c: float, pivots: Array, space: Array, S: Array) -> float:
    """The upper triangle of S of the first rows and columns; returns what adds up."""
    _, _, borders, inside, gram = core
    p = borders.shape[0]
    Y, Z = space[0, : p * rows].reshape(p, rows), space[1, : p * rows].reshape(p, rows)
    V, W = space[2, : p * columns].reshape(p, columns), space[3, : p * columns].reshape(p, columns)
    size = 0.0
    for first, solved, divided, scale in ((0, Y, Z, 1.0), (inside.shape[0], V, W, a * a)):
        size += _solve(borders, first, pivots, solved, divided) / scale
    of_rows, across, of_columns = np.dot(Y.T, Z), np.dot(Y.T, W), np.dot(V.T, W)
    for i in range(rows):
        for j in range(i, rows):
            S[i, j] = -of_rows[i, j]
        S[i, i] += a
        for j in range(columns):
            S[i, rows + j] = inside[i, j] + across[i, j] / a
    for i in range(columns):
        for j in range(i, columns):
            S[rows + i, rows + j] = -(gram[i, j] + of_columns[i, j] / a) / a
        S[rows + i, rows + i] += c
    return size


@_compile
def _take(S: Array, first: int, last: int, n: int, a: float, found: Array) -> None:
    """Eliminate rows of an upper triangle of n rows, and add up their pivots."""
    negative, product, size = 0, 1.0, 0.0
    for q in range(first, last):
        pivot = S[q, q:n]
        d = pivot[0]
        inverse, negative, size, product = 1 / d, negative + (d < 0), size + abs(d), product * abs(d / a)
        for i in range(1, n - q):
            row, source = S[q + i, q + i : n], pivot[i:]
            factor = source[0] * inverse
            size += abs(factor * source[0])
            for j in range(row.shape[0]):
                row[j] -= factor * source[j]
        if (q - first) % _FACTORS == 0 or q + 1 == last:
            found[1], product = found[1] + math.log(product), 1.0
    found[0] += negative
    found[2] += size


@_inline
def _take_halves(S: Array, rows: int, columns: int, a: float, found: Array) -> None:
    """What pivots add up to at h = 2ᵐ places of equal parts of rows and columns, (h, 3), beside what found[0] holds.

    Blocks of the first half have all rows of the second, which has all columns of the first. One place has all.
    """
    h, n, first = found.shape[0], rows + columns, 0
    r, c, nodes, sums = rows // h, columns // h, S.reshape(1, *S.shape), found[:1].copy()
    last = n if h == 1 else r
    while h > 1:
        h //= 2
        # Rows stand in reverse order: of the second half, of the first, then columns of the first and the second.
        n, most = (r + c) * h, max(r, c) * h
        left, added = np.empty((2 * len(nodes), most + n, most + n)), np.empty((2 * len(nodes), 3))
        index = np.empty(most + n, np.int64)
        for half in range(2):
            begin = most - (c if half else r) * h
            for i in range(begin, most + n):
                index[i] = first + i - begin
                if half:
                    index[i] += 2 * r * h if i < most else -c * h if i < most + r * h else r * h
            for node in range(len(nodes)):
                source, target, total = nodes[node], left[2 * node + half], added[2 * node + half]
                for i in range(begin, most + n):
                    for j in range(i, most + n):
                        target[i, j] = source[min(index[i], index[j]), max(index[i], index[j])]
                for i in range(3):
                    total[i] = sums[node, i]
                _take(target, begin, most, most + n, a, total)
        nodes, sums, first = left, added, most
    for node in range(len(nodes)):
        for i in range(3):
            found[node, i] = sums[node, i]
        _take(nodes[node], first, first + last, first + last, a, found[node])


@_compile
def _eliminate(cores: Cores, blocks: Places, shifts: Array, sign: int, found: Array) -> None:
    """What `eliminate_chunks` returns, (M, K, h, 3), of so many first rows and columns of chunks, (M, 3), by halves."""
    N, rows, columns = cores.inside.shape
    longest, n = cores.first[N] - cores.first[max(N - 1, 0)], rows + columns
    space, pivots = np.empty((4, longest * max(rows, columns))), np.empty((2, longest, shifts.shape[1]))
    S, sums = np.empty((n, n)), np.empty((3, shifts.shape[1]))
    for block in range(len(blocks)):
        a, rows, columns, core = shifts[block], blocks[block, 1], blocks[block, 2], _core(cores, blocks[block, 0])
        begun = False
        for k in range(len(a)):
            if a[k] > 0:
                if not begun:
                    _core_pivots(core, a, sign, pivots, sums)
                    begun = True
                sums[2, k] += _place(core, rows, columns, a[k], sign * a[k], pivots[:, :, k], space, S)
                for i in range(3):
                    found[block, k, 0, i] = sums[i, k]
                _take_halves(S, rows, columns, a[k], found[block, k])


def eliminate_each(cores: Cores, shifts: Array) -> Array:
    """Of K = [τ I, H; Hᵀ, τ I] at each position for shifts of its own, (Q, K): see `eliminate_chunks`."""
    found, blocks = np.zeros((*shifts.shape, 1, 3)), np.stack([cores.chunk, cores.rows, cores.columns], 1)
    _eliminate(cores, blocks, np.ascontiguousarray(shifts), 1, found)
    return found[:, :, 0]


def eliminate_chunks(cores: Cores, shifts: Array, sign: int) -> Array:
    """Of K = [τ I, H; Hᵀ, ±τ I] at each position for shifts that its chunk has, (N, K).

    Returns:
        The number of negative pivots, Σ ln |pivot / τ|, and what adds up, (Q, K, 3); 0 at τ ≤ 0.
    """
    rows, columns = cores.inside.shape[1:]
    places = math.gcd(rows, columns)
    blocks = np.array([(chunk, rows, columns) for chunk in range(len(shifts))], np.int64).reshape(-1, 3)
    found = np.zeros((*shifts.shape, places, 3))
    _eliminate(cores, blocks, np.ascontiguousarray(shifts), sign, found)
    return found[cores.chunk, :, cores.columns * places // columns]


@_inline
def _gram_times(core: Core, rows: int, columns: int, v: Array, product: Array) -> None:
    """HᵀH v, of which the first p are in the basis of the core."""
    diagonal, beside, borders, inside, gram = core
    p, all_rows = diagonal.shape[0], inside.shape[0]
    images, left, tail = np.zeros(rows), np.zeros(columns), v[p:]
    for q in range(p):
        of_rows, of_columns, x = borders[q, :rows], borders[q, all_rows : all_rows + columns], v[q]
        for k in range(rows):
            images[k] += of_rows[k] * x
        for k in range(columns):
            left[k] += of_columns[k] * x
    for i in range(rows):
        for j in range(columns):
            images[i] += inside[i, j] * tail[j]
    for j in range(columns):
        for i in range(rows):
            left[j] += inside[i, j] * images[i]
        for i in range(columns):
            left[j] += gram[min(i, j), max(i, j)] * tail[i]
        product[p + j] = left[j]
    for q in range(p):
        of_rows, of_columns = borders[q, :rows], borders[q, all_rows : all_rows + columns]
        total = diagonal[q] * v[q]
        if q:
            total += beside[q - 1] * v[q - 1]
        if q + 1 < p:
            total += beside[q] * v[q + 1]
        for k in range(rows):
            total += of_rows[k] * images[k]
        for k in range(columns):
            total += of_columns[k] * tail[k]
        product[q] = total


@_inline
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
    """σ_1 at each position by Lanczos' method, and the residual of HᵀH beside σ_1², (Q, 2); NaN where it takes long."""
    alpha, beta, weights = np.zeros(_MOST), np.zeros(_MOST), np.zeros(_MOST)
    V, w, start = np.zeros((1, 1)), np.zeros(1), np.zeros(1)
    chunk, m = -1, 0
    # Each position begins with the vector of the one before.
    for query in range(cores.chunk.shape[0]):
        core = _core(cores, cores.chunk[query])
        if cores.chunk[query] != chunk:
            chunk, longest = cores.chunk[query], core[0].shape[0] + core[4].shape[0]
            V, w, start = np.zeros((_MOST + 1, longest)), np.empty(longest), np.ones(longest)
        n = core[0].shape[0] + cores.columns[query]
        largest[query] = math.nan
        square = 0.0
        for k in range(n):
            square += start[k] * start[k]
        norm = math.sqrt(square)
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
                    largest[query, 0], largest[query, 1] = math.sqrt(top), residual * abs(weights[m - 1]) / top
                    break
            beta[m - 1] = residual
            for k in range(n):
                V[m, k] = w[k] / residual
        # Directions that a later block has and this one lacks need some weight.
        start[:] = 1e-3 / math.sqrt(n)
        for i in range(m):
            for k in range(n):
                start[k] += weights[i] * V[i, k]
