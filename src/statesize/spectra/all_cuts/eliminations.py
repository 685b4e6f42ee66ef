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
# Pivots that are multiplied before a logarithm is taken, and places that are not halved further.
_FACTORS, _LEAF = 8, 8
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
            border = borders[q, : cores.rows[query]]
            for k in range(border.shape[0]):
                total += border[k] * border[k]
        for j in range(cores.columns[query]):
            total += gram[j, j]
            for i in range(cores.rows[query]):
                total += inside[i, j] * inside[i, j]
        squares[query] = total


@_compile
def _core_pivots(core: Core, a: Array, c: Array, pivots: Array, found: Array) -> None:
    """The core at K shifts: multipliers and 1 / d of its pivots d, (2, p, K), and what these add up to, (3, K)."""
    diagonal, beside, count = core[0], core[1], a.shape[0]
    scale, coupling, product = 1 / a, np.zeros(count), np.ones(count)
    found[:] = 0
    for q in range(diagonal.shape[0]):
        factor, inverse, before = pivots[0, q], pivots[1, q], pivots[1, max(q - 1, 0)]
        for k in range(count):
            factor[k] = coupling[k] * before[k] if q else 0.0
            d = c[k] - diagonal[q] * scale[k] - factor[k] * coupling[k]
            found[0, k] += d < 0
            found[2, k] += abs(factor[k] * coupling[k]) + abs(d)
            inverse[k] = 1 / d
            product[k] *= abs(d * scale[k])
            coupling[k] = -beside[q] * scale[k]
        if q % _FACTORS == 0 or q + 1 == diagonal.shape[0]:
            for k in range(count):
                found[1, k] += math.log(product[k])
                product[k] = 1.0


@_compile
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
    return sizes.sum()


@_compile
def _place(core: Core, rows: int, columns: int, a: float, c: float, pivots: Array, space: Array, S: Array) -> float:
    """The upper triangle of S of the first rows and columns; returns what adds up."""
    _, _, borders, inside, gram = core
    p = borders.shape[0]
    Y, Z = space[0, : p * rows].reshape(p, rows), space[1, : p * rows].reshape(p, rows)
    V, W = space[2, : p * columns].reshape(p, columns), space[3, : p * columns].reshape(p, columns)
    size = _solve(borders, 0, pivots, Y, Z) + _solve(borders, inside.shape[0], pivots, V, W) / (a * a)
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


@_compile
def _take_at_places(S: Array, r: int, c: int, b: int, a: float, taken: Array, found: Array) -> None:
    """What pivots add up to at b places of r rows and c columns each, (b, 3), beside what was taken before, (3,)."""
    # From the last to the first: with each, a block has more rows.
    B = np.empty((c * b, c * b))
    for place in range(b - 1, -1, -1):
        done, rows, columns = r * (b - 1 - place), r * (b - place), c * place
        _take(S, done, rows, (r + c) * b, a, taken)
        for i in range(columns):
            for j in range(i, columns):
                B[i, j] = S[r * b + i, r * b + j]
        found[place] = taken
        _take(B, 0, columns, columns, a, found[place])


@_compile
def _take_halves(S: Array, r: int, c: int, a: float, taken: Array, found: Array) -> None:
    """As `_take_at_places`, by halves: blocks of the first have all rows of the second, which has all its columns."""
    nodes, sums, h = S.reshape(1, *S.shape), taken.reshape(1, 3), found.shape[0]
    while h > _LEAF and h % 2 == 0:
        h //= 2
        n, left = (r + c) * h, np.empty((2 * nodes.shape[0], (r + c) * h, (r + c) * h))
        added = np.empty((2 * nodes.shape[0], 3))
        for half in range(2):
            # Rows stand in reverse order: of the second half, of the first, then columns of the first and the second.
            taken_from, count = (2 * r * h, c * h) if half else (0, r * h)
            index, M = np.empty(count + n, np.int64), np.empty((count + n, count + n))
            index[:count] = np.arange(taken_from, taken_from + count)
            index[count : count + r * h] = np.arange(r * h) + (0 if half else r * h)
            index[count + r * h :] = np.arange(c * h) + 2 * r * h + (c * h if half else 0)
            for node in range(nodes.shape[0]):
                for i in range(count + n):
                    for j in range(i, count + n):
                        M[i, j] = nodes[node, min(index[i], index[j]), max(index[i], index[j])]
                added[2 * node + half] = sums[node]
                _take(M, 0, count, count + n, a, added[2 * node + half])
                left[2 * node + half] = M[count:, count:]
        nodes, sums = left, added
    for node in range(nodes.shape[0]):
        _take_at_places(nodes[node], r, c, h, a, sums[node], found[node * h : node * h + h])


@_compile
def _spaces(cores: Cores, count: int) -> tuple[Array, Array, Array]:
    """Room for borders of a core, for its pivots at K shifts, and for S."""
    longest, (rows, columns) = 0, cores.inside.shape[1:]
    for k in range(cores.inside.shape[0]):
        longest = max(longest, cores.first[k + 1] - cores.first[k])
    n = rows + columns
    return np.empty((4, longest * max(rows, columns))), np.empty((2, longest, count)), np.empty((n, n))


@_compile
def count_above(cores: Cores, shifts: Array, counts: Places, sizes: Array) -> None:
    """#{σ > τ} at each position for shifts of its own, (Q, K), and what adds up in each elimination; not at τ ≤ 0."""
    space, pivots, S = _spaces(cores, shifts.shape[1])
    found = np.empty((3, shifts.shape[1]))
    for query in range(shifts.shape[0]):
        a = shifts[query]
        if not (a > 0).any():
            continue
        core, rows, columns = _core(cores, cores.chunk[query]), cores.rows[query], cores.columns[query]
        _core_pivots(core, a, a, pivots, found)
        for k in range(a.shape[0]):
            if a[k] > 0:
                own, sums = pivots[:, : core[0].shape[0], k].copy(), found[:, k].copy()
                sums[2] += _place(core, rows, columns, a[k], a[k], own, space, S)
                _take(S, 0, rows + columns, rows + columns, a[k], sums)
                counts[query, k], sizes[query, k] = int(sums[0]), sums[2]


@_compile
def eliminate_chunks(cores: Cores, shifts: Array, sign: int, found: Array) -> None:
    """Of K = [τ I, H; Hᵀ, ±τ I], at each position for shifts that its chunk has, (N, K), into (Q, K, 3).

    The number of negative pivots, Σ ln |pivot / τ|, and what adds up; nothing at τ ≤ 0.
    """
    rows, columns = cores.inside.shape[1:]
    space, pivots, S = _spaces(cores, shifts.shape[1])
    b = math.gcd(rows, columns)
    r, c, taken, every = rows // b, columns // b, np.empty((3, shifts.shape[1])), np.empty((b, 3))
    last = 0
    while last < cores.chunk.shape[0]:
        chunk, first = cores.chunk[last], last
        while last < cores.chunk.shape[0] and cores.chunk[last] == chunk:
            last += 1
        core, a = _core(cores, chunk), shifts[chunk]
        if not (a > 0).any():
            continue
        _core_pivots(core, a, sign * a, pivots, taken)
        for k in range(a.shape[0]):
            if a[k] > 0:
                own, sums = pivots[:, : core[0].shape[0], k].copy(), taken[:, k].copy()
                sums[2] += _place(core, rows, columns, a[k], sign * a[k], own, space, S)
                _take_halves(S, r, c, a[k], sums, every)
                for query in range(first, last):
                    found[query, k] = every[cores.columns[query] // c]


@_compile
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
