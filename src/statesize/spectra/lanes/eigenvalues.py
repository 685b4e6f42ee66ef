"""Eigenvalues of many small symmetric matrices side by side."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from statesize.spectra.lanes.vectors import (
    any_positive,
    compile_lanes,
    lane_functions,
    square_root,
    store,
    where_positive,
)

Array = npt.NDArray[np.float64]

WIDTH = 8
"""Matrices that are made tridiagonal together: as many doubles as the widest vector registers hold."""
GROUPS = 4
"""Groups of these whose eigenvalues are iterated together: its divisions wait for one another, but not for others'."""

load, splat, _ = lane_functions(WIDTH)
load_all, splat_all, _ = lane_functions(WIDTH * GROUPS)
# Squared subdiagonal entries that are taken for 0, for matrices of trace 1.
_NEGLIGIBLE = 1e-33
_SWEEPS = 60
LOSSY = 1e-200
"""Sums of squares below this may have lost digits to underflow."""


@compile_lanes
def tridiagonalise(matrix: Array, n: int, group: int, diagonal: Array, squares: Array, work: Array) -> None:
    """One group of symmetric matrices (n · n · 8) by Householder reflections into the g-th of 4 groups of results."""
    # n is a constant of the arrays; lower triangles are used, and destroyed; work (2 n · 8).
    zero, lossy = splat(0.0), splat(LOSSY)
    for k in range(n - 2):
        m, corner = n - k - 1, (k + 1) * (n + 1)
        tail = zero
        for i in range(1, m):
            x = load(matrix, corner + i * n - 1)
            tail = tail + x * x
            store(work, i, x)
        x = load(matrix, corner - 1)
        square = tail + x * x
        norm = square_root(square)
        first = where_positive(x, x + norm, x - norm)
        store(work, 0, first)
        length = tail + first * first
        # What is so small beside a trace of 1 is left out: its reflection would not keep the size of the rest.
        scale = where_positive(square - lossy, splat(2.0) / length, zero)
        store(squares, k * GROUPS + group, where_positive(square - lossy, square, zero))
        store(diagonal, k * GROUPS + group, load(matrix, corner - n - 1))
        _reflect(matrix, n, m, corner, scale, work)
    store(diagonal, (n - 1) * GROUPS + group, load(matrix, n * n - 1))
    if n > 1:
        x = load(matrix, n * n - 2)
        store(diagonal, (n - 2) * GROUPS + group, load(matrix, n * n - n - 2))
        store(squares, (n - 2) * GROUPS + group, x * x)


@compile_lanes
def _reflect(G: Array, n: int, m: int, corner: int, scale: Any, work: Array) -> None:
    # G ← H G H for the lower triangle of m rows from `corner` on, with H = I − scale v vᵀ and v = work[:m].
    zero, p = splat(0.0), n
    for i in range(m):
        store(work, p + i, zero)
    # p = G v, two columns at a time.
    for j in range(0, m - 1, 2):
        a = corner + j * (n + 1)
        v0, v1, between = load(work, j), load(work, j + 1), load(G, a + n)
        s0, s1 = load(G, a) * v0 + between * v1, between * v0 + load(G, a + n + 1) * v1
        for i in range(j + 2, m):
            a += n
            g0, g1, x = load(G, a + n), load(G, a + n + 1), load(work, i)
            store(work, p + i, load(work, p + i) + g0 * v0 + g1 * v1)
            s0 = s0 + g0 * x
            s1 = s1 + g1 * x
        store(work, p + j, load(work, p + j) + s0)
        store(work, p + j + 1, load(work, p + j + 1) + s1)
    if m % 2:
        last = m - 1
        store(work, p + last, load(work, p + last) + load(G, corner + last * (n + 1)) * load(work, last))
    inner = zero
    for i in range(m):
        x = load(work, p + i) * scale
        store(work, p + i, x)
        inner = inner + x * load(work, i)
    inner = inner * scale * splat(0.5)
    for i in range(m):
        store(work, p + i, load(work, p + i) - inner * load(work, i))
    # G ← G − v pᵀ − p vᵀ
    for j in range(0, m, 2):
        v0, p0 = load(work, j), load(work, p + j)
        a = corner + j * (n + 1)
        store(G, a, load(G, a) - v0 * p0 - p0 * v0)
        if j + 1 < m:
            v1, p1 = load(work, j + 1), load(work, p + j + 1)
            for i in range(j + 1, m):
                a += n
                x, y = load(work, i), load(work, p + i)
                store(G, a, load(G, a) - x * p0 - y * v0)
                store(G, a + 1, load(G, a + 1) - x * p1 - y * v1)


@compile_lanes
def root_free_qr(diagonal: Array, squares: Array, n: int) -> None:
    """Eigenvalues of all groups of tridiagonal matrices of trace 1, unsorted, over the diagonals (n · 4 · 8)."""
    # The root-free QR iteration of Pal, Walker and Kahan (Parlett, The Symmetric Eigenvalue Problem, section 8.15),
    # with an error of a small multiple of eps; the squared subdiagonals (n · 4 · 8) are destroyed.
    zero, one, half, negligible = splat_all(0.0), splat_all(1.0), splat_all(0.5), splat_all(_NEGLIGIBLE)
    for last in range(n - 1, 0, -1):
        for _ in range(_SWEEPS):
            square = load_all(squares, last - 1)
            if not any_positive(square - negligible):
                break
            end = load_all(diagonal, last)
            middle = half * (load_all(diagonal, last - 1) - end)
            root = square_root(middle * middle + square)
            toward = where_positive(middle, middle + root, middle - root)
            shift = end - where_positive(toward * toward, square / toward, zero)
            cosine, sine = one, zero
            gamma = load_all(diagonal, 0) - shift
            p = gamma * gamma
            for i in range(last):
                square = load_all(squares, i)
                radius = p + square
                if i > 0:
                    store(squares, i - 1, sine * radius)
                inverse, before, old = one / radius, cosine, gamma
                # Their quotient does not wait for the new cosine, by which one would divide otherwise.
                ratio = radius / p
                cosine = where_positive(radius, p * inverse, one)
                sine = where_positive(radius, square * inverse, zero)
                alpha = load_all(diagonal, i + 1)
                gamma = cosine * (alpha - shift) - sine * old
                store(diagonal, i, old + (alpha - gamma))
                # Where nothing couples to what comes before, it begins anew.
                anew = where_positive(square, before * square, gamma * gamma)
                p = where_positive(p, gamma * gamma * ratio, anew)
            store(squares, last - 1, sine * p)
            store(diagonal, last, shift + gamma)


@compile_lanes
def squared_norms(diagonal: Array, squares: Array, n: int) -> Any:
    """‖·‖_F² of all groups of tridiagonal matrices, the sum of their squared eigenvalues, 32 lanes."""
    # No subdiagonals are passed where the eigenvalues stand in the diagonal.
    total = splat_all(0.0)
    for i in range(n):
        x = load_all(diagonal, i)
        total = total + x * x
    for i in range(squares.shape[0] // (WIDTH * GROUPS) - 1):
        square = load_all(squares, i)
        total = total + (square + square)
    return total


@compile_lanes
def sort_descending(values: Array, n: int) -> None:
    """Each lane of all groups (n · 4 · 8) in descending order."""
    for end in range(n - 1, 0, -1):
        x = load_all(values, 0)
        for i in range(end):
            y = load_all(values, i + 1)
            larger = x - y
            store(values, i, where_positive(larger, x, y))
            x = where_positive(larger, y, x)
        store(values, end, x)
