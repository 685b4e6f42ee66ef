"""Elimination of chunks around a tridiagonal core: first the core at a shift, then the chunk at all its positions.

[[aI, H_i], [H_iᵀ, cI]] without what lies outside a chunk on one side leaves a core Θ, tridiagonal once for all shifts,
and borders W between the core and the chunk (docs/appendix/engine-mathematics.md, "Tridiagonal cores"). A shift then
costs the pivots of a tridiagonal matrix, one substitution and one symmetric product, (r + 1)² p b² operations for a
core of p rows.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from statesize.spectra.lanes.elimination import Array, eliminate_each
from statesize.spectra.lanes.vectors import VERSION, compile_entry, compile_lanes, lane_functions, store

Whole = npt.NDArray[np.int64]

LANES = 8
"""Columns in one instruction; b and (r + 1) b must be multiples of twice as many."""
# Rows of a core between two products, so that what these read stays in the nearest cache.
_ROWS = 32
# Chunks whose matrices are held at once.
_CHUNKS = 32

_load, _splat = lane_functions(LANES)


@compile_entry
def eliminate_around_cores(
    chunk: Whole,
    a: Array,
    c: Array,
    of_past: npt.NDArray[np.bool_],
    first: Whole,
    diagonal: Array,
    beside: Array,
    borders: Array,
    gram: Array,
    inside: Array,
    positive: Whole,
    logarithm: Array,
    size: Array,
    version: int = VERSION,
) -> None:
    """As `eliminate_chunks`, the core included, (m, b) each, of chunks (m,) at shifts a, c (m,)."""
    # N chunks: whether the core stands for the past, (N,); where its rows begin, (N + 1,), in Θ, (rows,) each, and
    # in W, (rows · (r + 1) b); the Gram matrix of the chunk's own rows or columns, (N, r b, r b), and T inside,
    # (N, r b, b).
    b, rows = inside.shape[2], inside.shape[1]
    border = rows + b
    chunks = np.empty((_CHUNKS, border, border))
    solved, scaled = np.empty(_ROWS * border), np.empty(_ROWS * border)
    cores = np.empty((_CHUNKS, 3))
    for begin in range(0, len(chunk), _CHUNKS):
        count = min(_CHUNKS, len(chunk) - begin)
        for n in range(count):
            m = begin + n
            k = chunk[m]
            _place(a[m], c[m], of_past[k], gram[k], inside[k], chunks[n])
            low, high = first[k], first[k + 1]
            core = diagonal[low:high], beside[low:high], borders[low * border : high * border]
            counted, logs, lost = _eliminate_core(
                a[m], c[m], of_past[k], core[0], core[1], core[2], solved, scaled, chunks[n].ravel(), rows, b
            )
            cores[n, 0], cores[n, 1], cores[n, 2] = counted, logs, lost
        part = slice(begin, begin + count)
        eliminate_each(chunks[:count], rows // b, positive[part], logarithm[part], size[part])
        for n in range(count):
            for j in range(b):
                positive[begin + n, j] += int(cores[n, 0])
                logarithm[begin + n, j] += cores[n, 1]
                size[begin + n, j] += cores[n, 2]


@compile_lanes
def _place(a: float, c: float, of_past: bool, gram: Array, inside: Array, whole: Array) -> None:
    # The chunk without the core: of the past, its future is eliminated with the pivot a, otherwise its past with c.
    rows, b = inside.shape
    outside_rows, outside_columns = (0.0, 1.0 / a) if of_past else (1.0 / c, 0.0)
    for i in range(rows):
        for j in range(rows):
            whole[i, j] = -outside_rows * gram[i, j]
        for j in range(b):
            whole[i, rows + j] = inside[i, j]
        whole[i, i] += a
    for i in range(b):
        for j in range(b):
            whole[rows + i, rows + j] = -outside_columns * gram[i, j]
        whole[rows + i, rows + i] += c


@compile_lanes
def _eliminate_core(
    a: float,
    c: float,
    of_past: bool,
    diagonal: Array,
    beside: Array,
    borders: Array,
    solved: Array,
    scaled: Array,
    whole: Array,
    rows: int,
    columns: int,
) -> tuple[float, float, float]:
    # Positive pivots, Σ ln |pivot| and the size of what was taken from `whole`, (rows + columns)².
    outer, inner = (a, c) if of_past else (c, a)
    to_rows, to_columns = (1.0, -1.0 / outer) if of_past else (-1.0 / outer, 1.0)
    units = (rows + columns) // LANES
    middle = rows // LANES
    positive, logarithm, size, pivot, coupling = 0.0, 0.0, 0.0, 1.0, 0.0
    energy = np.empty(LANES)
    for low in range(0, len(diagonal), _ROWS):
        high = min(low + _ROWS, len(diagonal))
        for q in range(low, high):
            multiplier = coupling / pivot
            pivot = inner - diagonal[q] / outer - multiplier * coupling
            inverse = 1.0 / pivot
            positive += 1.0 if pivot > 0.0 else 0.0
            logarithm += math.log(abs(pivot))
            at, before = (q - low) * units, (q - low - 1 if q > low else _ROWS - 1) * units
            down, over, total = _splat(multiplier), _splat(inverse), _splat(0.0)
            for u in range(units):
                y = _splat(to_rows if u < middle else to_columns) * _load(borders, q * units + u)
                if q:
                    y = y - down * _load(solved, before + u)
                store(solved, at + u, y)
                z = y * over
                store(scaled, at + u, z)
                total = total + y * z
            store(energy, 0, total)
            coupling = -beside[q] / outer
            size += abs(pivot) + abs(energy.sum() + coupling * (coupling * inverse))
        for j in range(0, units, 2):
            for i in range(0, min(units * LANES, (j + 2) * LANES), 4):
                _subtract(scaled, solved, high - low, units, i, j, whole)
    return positive, logarithm, size


@compile_lanes
def _subtract(scaled: Array, solved: Array, count: int, units: int, i: int, j: int, whole: Array) -> None:
    # Takes Σ_q scaled[q, i …] solved[q, j …] from the tile of 4 rows from i on and 2 · 8 columns from unit j on.
    width, at = units * LANES, i * units + j
    a0, a1 = _load(whole, at), _load(whole, at + 1)
    b0, b1 = _load(whole, at + units), _load(whole, at + units + 1)
    c0, c1 = _load(whole, at + 2 * units), _load(whole, at + 2 * units + 1)
    d0, d1 = _load(whole, at + 3 * units), _load(whole, at + 3 * units + 1)
    for q in range(count):
        y0, y1 = _load(solved, q * units + j), _load(solved, q * units + j + 1)
        row = q * width + i
        x = _splat(scaled[row])
        a0, a1 = a0 - x * y0, a1 - x * y1
        x = _splat(scaled[row + 1])
        b0, b1 = b0 - x * y0, b1 - x * y1
        x = _splat(scaled[row + 2])
        c0, c1 = c0 - x * y0, c1 - x * y1
        x = _splat(scaled[row + 3])
        d0, d1 = d0 - x * y0, d1 - x * y1
    store(whole, at, a0)
    store(whole, at + 1, a1)
    store(whole, at + units, b0)
    store(whole, at + units + 1, b1)
    store(whole, at + 2 * units, c0)
    store(whole, at + 2 * units + 1, c1)
    store(whole, at + 3 * units, d0)
    store(whole, at + 3 * units + 1, d1)
