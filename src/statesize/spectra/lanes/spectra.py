"""All squared singular values of many small diagonal recurrences, eight recurrences side by side."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from statesize.spectra.lanes.eigenvalues import (
    GROUPS,
    LOSSY,
    WIDTH,
    Array,
    load,
    load_all,
    root_free_qr,
    sort_descending,
    splat,
    splat_all,
    squared_norms,
    tridiagonalise,
)
from statesize.spectra.lanes.vectors import VERSION, compile_entry, compile_lanes, square_root, store, where_positive


@compile_lanes
def factor_size(n: int) -> int:
    """Places of a triangular factor."""
    return n * (n + 2) // 2


@compile_lanes
def append(source: Array, from_: int, target: Array, to: int, scale: Array, row: Array, n: int) -> Any:
    """R of qr([R₀ Diag(scale); row]) by Givens rotations into a buffer that may be its own; returns ‖R‖_F."""
    # source holds R₀ from `from_` on; scale and row (n · 8), the row is destroyed.
    zero, one, small, larger, smaller = splat(0.0), splat(1.0), splat(LOSSY), splat(2.0**600), splat(2.0**-600)
    total, k = zero, 0
    for r in range(n):
        if r % 2:
            store(target, to + k, zero)
            k += 1
        x, y = load(source, from_ + k) * load(scale, r), load(row, r)
        square = x * x + y * y
        total = total + square
        # A square near underflow has lost digits, and a rotation by them would change the length of its rows.
        lossy = small - square
        x, y = where_positive(lossy, x * larger, x), where_positive(lossy, y * larger, y)
        h = square_root(where_positive(lossy, x * x + y * y, square))
        inverse = one / h
        cosine, sine = where_positive(h, x * inverse, one), where_positive(h, y * inverse, zero)
        store(target, to + k, where_positive(lossy, h * smaller, h))
        k += 1
        for i in range(r + 1, n):
            p, q = load(source, from_ + k) * load(scale, i), load(row, i)
            x = cosine * p + sine * q
            total = total + x * x
            store(target, to + k, x)
            store(row, i, cosine * q - sine * p)
            k += 1
    return square_root(total)


@compile_lanes
def squared_product(S: Array, from_: int, L: Array, product: Array, gram: Array, n: int) -> Any:
    """The lower triangle of MᵀM / ‖M‖_F², M = S Lᵀ of triangular factors, into gram (n · n · 8); returns ‖M‖_F²."""
    # 8 lanes; 0 where the squares would be lost to underflow.
    zero = splat(0.0)
    total = zero
    for i in range(0, n, 2):
        for j in range(0, n, 2):
            first = max(i, j)
            s = from_ + i * n - i * (i - 2) // 2 + first - i
            f = j * n - j * (j - 2) // 2 + first - j
            m00, m01, m10, m11 = zero, zero, zero, zero
            for k in range(n - first):
                s0, s1 = load(S, s + k), load(S, s + n - i + k)
                f0, f1 = load(L, f + k), load(L, f + n - j + k)
                m00 = m00 + s0 * f0
                m01 = m01 + s0 * f1
                m10 = m10 + s1 * f0
                m11 = m11 + s1 * f1
            total = total + (m00 * m00 + m01 * m01) + (m10 * m10 + m11 * m11)
            store(product, i * n + j, m00)
            store(product, i * n + j + 1, m01)
            store(product, i * n + n + j, m10)
            store(product, i * n + n + j + 1, m11)
    large = total - splat(1e-300)
    inverse = where_positive(large, splat(1.0) / total, zero)
    for i in range(0, n, 2):
        for j in range(0, i + 1, 2):
            g00, g01, g10, g11 = zero, zero, zero, zero
            for k in range(0, n * n, n):
                a0, a1, b0, b1 = (
                    load(product, k + i),
                    load(product, k + i + 1),
                    load(product, k + j),
                    load(product, k + j + 1),
                )
                g00 = g00 + a0 * b0
                g01 = g01 + a0 * b1
                g10 = g10 + a1 * b0
                g11 = g11 + a1 * b1
            store(gram, i * n + j, g00 * inverse)
            store(gram, i * n + j + 1, g01 * inverse)
            store(gram, i * n + n + j, g10 * inverse)
            store(gram, i * n + n + j + 1, g11 * inverse)
    return where_positive(large, total, zero)


Integers = npt.NDArray[np.int64]

# Positions whose factors of the future are held at once. All of them would be 18 MB for 2048 positions of 16 states,
# which takes longer to write and read than to compute once more from every 32nd.
CHUNK = 32
# How far the sum of squared eigenvalues of a matrix of trace 1 may be from ‖·‖_F²: far above round-off.
_MOVED = 1e-10


@compile_entry
def squared_spectra(
    A: Array,
    B: Array,
    C: Array,
    positions: Integers,
    limits: Integers,
    squares: Array,
    errors: Array,
    totals: Array,
    version: int = VERSION,
) -> None:
    """σ² at chosen positions into squares (entries, P, r), descending, and the error of σ by the factors' round-off."""
    # A, B, C (entries, L, n) and a last dimension of which only the first entry is read; positions (P,), ascending;
    # limits (P,), min(rows, columns) of H_i there; r ≤ n. errors (2, entries, P): for a bound that forgets what the
    # recurrence forgets, which can be NaN, and for what is added to either bound; totals (entries,): the other bound.
    entries, length = A.shape[:2]
    n = A.shape[2] + A.shape[2] % 2
    size, chunks = factor_size(n), (length - 1) // CHUNK + 1
    ends, S = np.empty((chunks + 1) * size * WIDTH), np.empty((CHUNK + 1) * size * WIDTH)
    future = np.empty(length * 3 * WIDTH)
    for first in range(0, entries, WIDTH):
        _future(A, C, first, n, ends, future)
        _past(A, B, C, first, n, positions, limits, ends, S, future, squares, errors, totals)


@compile_lanes
def _future(A: Array, C: Array, first: int, n: int, ends: Array, future: Array) -> None:
    # S_t at the end of each chunk, and at every t its norm, the error carried so far and that of its own step.
    length, states, size = A.shape[1], A.shape[2], factor_size(n)
    R, a, row = np.zeros(size * WIDTH), np.zeros(n * WIDTH), np.zeros(n * WIDTH)
    epsilon, norm, error = splat(2.0 * (states + 1) * 2.0**-52), splat(0.0), splat(0.0)
    ends[-size * WIDTH :] = 0.0
    for t in range(length - 1, 0, -1):
        gain, leaving = _leave(A, C, first, t, a, row, n)
        before = square_root(norm * norm + leaving)
        norm = append(R, 0, R, 0, a, row, n)
        step = epsilon * (norm + gain * before)
        error = gain * error + step
        store(future, 3 * t, norm)
        store(future, 3 * t + 1, error)
        store(future, 3 * t + 2, step)
        if t % CHUNK == 0:
            _copy(R, 0, ends, t // CHUNK * size, size)


@compile_lanes
def _refill(A: Array, C: Array, first: int, chunk: int, n: int, ends: Array, S: Array) -> None:
    # S_t at all positions of a chunk.
    size, start = factor_size(n), chunk * CHUNK
    a, row = np.zeros(n * WIDTH), np.zeros(n * WIDTH)
    stop = min(start + CHUNK, A.shape[1])
    _copy(ends, (chunk + 1) * size, S, (stop - start) * size, size)
    for t in range(stop - 1, max(start, 1) - 1, -1):
        _leave(A, C, first, t, a, row, n)
        append(S, (t - start + 1) * size, S, (t - start) * size, a, row, n)


@compile_lanes
def _copy(source: Array, start: int, target: Array, at: int, count: int) -> None:
    # Vector by vector: the check of shapes in an assignment of slices takes seconds to compile.
    for k in range(count):
        store(target, at + k, load(source, start + k))


@compile_lanes
def _leave(A: Array, C: Array, first: int, t: int, a: Array, row: Array, n: int) -> Any:
    # A_t and C_t A_t, and from them ‖A_t‖ and ‖C_t‖².
    gain, total = _gather(A, first, t, a), splat(0.0)
    _gather(C, first, t, row)
    for i in range(n):
        x = load(row, i)
        total = total + x * x
        store(row, i, x * load(a, i))
    return gain, total


@compile_lanes
def _past(
    A: Array,
    B: Array,
    C: Array,
    first: int,
    n: int,
    positions: Integers,
    limits: Integers,
    ends: Array,
    S: Array,
    future: Array,
    squares: Array,
    errors: Array,
    totals: Array,
) -> None:
    length, states, size = A.shape[1], A.shape[2], factor_size(n)
    L, a, row = np.zeros(size * WIDTH), np.zeros(n * WIDTH), np.zeros(n * WIDTH)
    product, gram, work = np.empty(n * n * WIDTH), np.empty(n * n * WIDTH), np.empty(2 * n * WIDTH)
    diagonal, subdiagonal = np.zeros(n * GROUPS * WIDTH), np.zeros(n * GROUPS * WIDTH)
    scale, line = np.zeros(GROUPS * WIDTH), np.empty(2 * WIDTH)
    epsilon, norm, error, total = splat(2.0 * (states + 1) * 2.0**-52), splat(0.0), splat(0.0), splat(0.0)
    column, waiting, chunk = 0, 0, -1
    for t in range(1, length):
        gain = _gather(A, first, t - 1, a)
        _gather(B, first, t - 1, row)
        before = norm
        norm = append(L, 0, L, 0, a, row, n)
        step = epsilon * (norm + gain * before)
        error = gain * error + step
        observe = load(future, 3 * t)
        total = total + step * observe + load(future, 3 * t + 2) * norm
        if column + waiting < positions.shape[0] and positions[column + waiting] == t:
            store(line, 0, observe * error + norm * load(future, 3 * t + 1))
            store(line, 1, epsilon * observe * norm)
            _spread(line, first, column + waiting, errors)
            if chunk != t // CHUNK:
                chunk = t // CHUNK
                _refill(A, C, first, chunk, n, ends, S)
            store(scale, waiting, squared_product(S, t % CHUNK * size, L, product, gram, n))
            tridiagonalise(gram, n, waiting, diagonal, subdiagonal, work)
            waiting += 1
        if waiting == GROUPS or (waiting and t == length - 1):
            before = squared_norms(diagonal, subdiagonal, n)
            root_free_qr(diagonal, subdiagonal, n)
            moved = squared_norms(diagonal, subdiagonal[:0], n) - before
            # Another engine computes the entries that are not numbers.
            sure = splat_all(_MOVED * _MOVED) - moved * moved
            store(scale, 0, where_positive(sure, load_all(scale, 0), splat_all(np.nan)))
            sort_descending(diagonal, n)
            _write(diagonal, scale, first, column, waiting, limits, squares)
            column, waiting = column + waiting, 0
    store(line, 0, total)
    for w in range(min(WIDTH, totals.shape[0] - first)):
        totals[first + w] = line[w]


@compile_lanes
def _gather(source: Array, first: int, t: int, target: Array) -> Any:
    # The vectors of eight recurrences at one position, and the largest absolute value of each.
    last = source.shape[0] - 1
    for w in range(WIDTH):
        entry = min(first + w, last)
        for i in range(source.shape[2]):
            target[i * WIDTH + w] = source[entry, t, i, 0]
    largest = splat(0.0)
    for i in range(source.shape[2]):
        x = load(target, i)
        x = where_positive(x, x, splat(0.0) - x)
        largest = where_positive(x - largest, x, largest)
    return largest


@compile_lanes
def _spread(line: Array, first: int, column: int, errors: Array) -> None:
    for k in range(2):
        for w in range(min(WIDTH, errors.shape[1] - first)):
            errors[k, first + w, column] = line[k * WIDTH + w]


@compile_lanes
def _write(values: Array, scale: Array, first: int, column: int, groups: int, limits: Integers, squares: Array) -> None:
    for w in range(min(WIDTH, squares.shape[0] - first)):
        for group in range(groups):
            for i in range(min(squares.shape[2], limits[column + group])):
                square = values[(i * GROUPS + group) * WIDTH + w] * scale[group * WIDTH + w]
                # Not max(), which would turn what is not a number into 0.
                squares[first + w, column + group, i] = 0.0 if square < 0.0 else square
