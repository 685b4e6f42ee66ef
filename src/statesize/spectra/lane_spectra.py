"""All squared singular values of many small diagonal recurrences, eight recurrences side by side."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from statesize.spectra.lane_eigenvalues import (
    GROUPS,
    WIDTH,
    Array,
    load,
    root_free_qr,
    sort_descending,
    splat,
    tridiagonalise,
)
from statesize.spectra.lane_factors import append, factor_size, squared_product
from statesize.spectra.lanes import compile_lanes, square_root, store, where_positive

Integers = npt.NDArray[np.int64]


@compile_lanes
def squared_spectra(
    A: Array, B: Array, C: Array, positions: Integers, limits: Integers, squares: Array, errors: Array, totals: Array
) -> None:
    """σ² at chosen positions, and the error of σ that the round-off of the factors makes.

    Args:
        A: Decays, (entries, L, n) and a last dimension of which only the first place is read.
        B: Input vectors, likewise.
        C: Output vectors, likewise.
        positions: Cut positions, ascending, (P,).
        limits: min(rows, columns) of H_i at these, (P,).
        squares: (entries, P, r), the result, descending; r ≤ n.
        errors: (2, entries, P), for a bound on the error that forgets what the recurrence forgets, which can be NaN,
            and for what is added to either bound.
        totals: (entries,), for the other bound.
    """
    entries, length = A.shape[:2]
    n = A.shape[2] + A.shape[2] % 2
    size = factor_size(n)
    S, L = np.empty((length + 1) * size * WIDTH), np.empty(size * WIDTH)
    future = np.empty((length + 1) * 3 * WIDTH)
    for first in range(0, entries, WIDTH):
        S[length * size * WIDTH :] = 0.0
        L[:] = 0.0
        _future(A, C, first, n, S, future)
        _past(A, B, first, n, positions, limits, S, L, future, squares, errors, totals)


@compile_lanes
def _future(A: Array, C: Array, first: int, n: int, S: Array, future: Array) -> None:
    # S_t, and of each its norm, the error carried so far and that of its own step.
    length, states = A.shape[1], A.shape[2]
    a, row = np.zeros(n * WIDTH), np.zeros(n * WIDTH)
    epsilon = splat(2.0 * (states + 1) * 2.0**-52)
    size, norm, error = factor_size(n), splat(0.0), splat(0.0)
    for t in range(length - 1, 0, -1):
        gain = _gather(A, first, t, a)
        _gather(C, first, t, row)
        leaving = splat(0.0)
        for i in range(n):
            x = load(row, i)
            leaving = leaving + x * x
            store(row, i, x * load(a, i))
        before = square_root(norm * norm + leaving)
        norm = append(S, (t + 1) * size, S, t * size, a, row, n)
        step = epsilon * (norm + gain * before)
        error = gain * error + step
        store(future, 3 * t, norm)
        store(future, 3 * t + 1, error)
        store(future, 3 * t + 2, step)


@compile_lanes
def _past(
    A: Array,
    B: Array,
    first: int,
    n: int,
    positions: Integers,
    limits: Integers,
    S: Array,
    L: Array,
    future: Array,
    squares: Array,
    errors: Array,
    totals: Array,
) -> None:
    length, states = A.shape[1], A.shape[2]
    a, row = np.zeros(n * WIDTH), np.zeros(n * WIDTH)
    product, gram, work = np.empty(n * n * WIDTH), np.empty(n * n * WIDTH), np.empty(2 * n * WIDTH)
    diagonal, subdiagonal = np.zeros(n * GROUPS * WIDTH), np.zeros(n * GROUPS * WIDTH)
    scale, line = np.zeros(GROUPS * WIDTH), np.empty(2 * WIDTH)
    epsilon = splat(2.0 * (states + 1) * 2.0**-52)
    size, norm, error, total = factor_size(n), splat(0.0), splat(0.0), splat(0.0)
    place, waiting = 0, 0
    for t in range(1, length):
        gain = _gather(A, first, t - 1, a)
        _gather(B, first, t - 1, row)
        before = norm
        norm = append(L, 0, L, 0, a, row, n)
        step = epsilon * (norm + gain * before)
        error = gain * error + step
        observe = load(future, 3 * t)
        total = total + step * observe + load(future, 3 * t + 2) * norm
        if place + waiting < positions.shape[0] and positions[place + waiting] == t:
            store(line, 0, observe * error + norm * load(future, 3 * t + 1))
            store(line, 1, epsilon * observe * norm)
            _spread(line, first, place + waiting, errors)
            store(scale, waiting, squared_product(S, t * size, L, product, gram, n))
            tridiagonalise(gram, n, waiting, diagonal, subdiagonal, work)
            waiting += 1
        if waiting == GROUPS or (waiting and t == length - 1):
            root_free_qr(diagonal, subdiagonal, n)
            sort_descending(diagonal, n)
            _write(diagonal, scale, first, place, waiting, limits, squares)
            place, waiting = place + waiting, 0
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
def _spread(line: Array, first: int, place: int, errors: Array) -> None:
    for k in range(2):
        for w in range(min(WIDTH, errors.shape[1] - first)):
            errors[k, first + w, place] = line[k * WIDTH + w]


@compile_lanes
def _write(values: Array, scale: Array, first: int, place: int, groups: int, limits: Integers, squares: Array) -> None:
    for w in range(min(WIDTH, squares.shape[0] - first)):
        for group in range(groups):
            for i in range(min(squares.shape[2], limits[place + group])):
                square = values[(i * GROUPS + group) * WIDTH + w] * scale[group * WIDTH + w]
                # Not max(), which would turn what is not a number into 0.
                squares[first + w, place + group, i] = 0.0 if square < 0.0 else square
