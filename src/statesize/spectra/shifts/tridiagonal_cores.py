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

from statesize.spectra.lanes.elimination import Array, eliminate_each, subtract_products
from statesize.spectra.lanes.vectors import (
    VERSION,
    any_positive,
    compile_entry,
    compile_lanes,
    lane_functions,
    lane_sum,
    store,
    where_positive,
)

Whole = npt.NDArray[np.int64]

LANES = 8
"""Columns in one instruction; b and (r + 1) b must be multiples of twice as many."""
# Rows of a core between two products, so that what these read stays in the nearest cache.
_ROWS = 32
# Between these, a product of pivots takes one more before its logarithm is taken.
_PRODUCTS = 1e-100, 1e100
# Chunks whose matrices are held at once.
_CHUNKS = 32

_load, _splat, _splat_at = lane_functions(LANES)


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
    # Logarithms (m, 0) are not taken. N chunks: whether the core stands for the past, (N,); where its rows begin,
    # (N + 1,), in Θ, (rows,) each, and in W, (rows · (r + 1) b); the Gram matrix of the chunk's own rows or columns,
    # (N, r b, r b), and T inside, (N, r b, b).
    b, rows = inside.shape[2], inside.shape[1]
    border, longest = rows + b, 0
    for m in range(len(chunk)):
        longest = max(longest, first[chunk[m] + 1] - first[chunk[m]])
    chunks, solved, scaled = np.empty((_CHUNKS, border, border)), np.empty(_ROWS * border), np.empty(_ROWS * border)
    # In one dimension, as slices of more take as long as what is done with them.
    wholes, grams, insides, units = chunks.ravel(), gram.ravel(), inside.ravel(), border // LANES
    # LANES evaluations stand side by side: their shifts, orders of cores, Θ, and what their pivots add up to.
    inner, outer, order = np.empty(LANES), np.empty(LANES), np.empty(LANES)
    along, aside, sums = np.empty(longest * LANES), np.empty(longest * LANES), np.empty(3 * LANES)
    cores = np.empty((_CHUNKS, 3))
    for begin in range(0, len(chunk), _CHUNKS):
        together = min(_CHUNKS, len(chunk) - begin)
        for some in range(0, together, LANES):
            for w in range(LANES):
                m = begin + min(some + w, together - 1)
                k = chunk[m]
                outer[w], inner[w] = (a[m], c[m]) if of_past[k] else (c[m], a[m])
                low, high = first[k], first[k + 1]
                order[w] = high - low
                for q in range(high - low):
                    along[q * LANES + w], aside[q * LANES + w] = diagonal[low + q], beside[low + q]
            _eliminate_tridiagonal(inner, outer, order, logarithm.size > 0, along, aside, sums)
            for w in range(min(LANES, together - some)):
                n = some + w
                k = chunk[begin + n]
                _place(a[begin + n], c[begin + n], of_past[k], grams, insides, k, rows, b, wholes, n * border * units)
                turn, core = -1.0 / outer[w], first[k] * units
                to_rows, to_columns = (1.0, turn) if of_past[k] else (turn, 1.0)
                taken = _take_core(
                    along, aside, w, int(order[w]), borders, core, to_rows, to_columns, solved, scaled,
                    rows // LANES, units, wholes, n * border * units,
                )  # fmt: skip
                cores[n, 0], cores[n, 1], cores[n, 2] = sums[w], sums[LANES + w], sums[2 * LANES + w] + taken
        part = slice(begin, begin + together)
        eliminate_each(chunks[:together], rows // b, positive[part], logarithm[part], size[part])
        for n in range(together):
            for j in range(b):
                positive[begin + n, j] += int(cores[n, 0])
                size[begin + n, j] += cores[n, 2]
            for j in range(logarithm.shape[1]):
                logarithm[begin + n, j] += cores[n, 1]


@compile_lanes
def _eliminate_tridiagonal(
    inner: Array, outer: Array, order: Array, logarithms: bool, along: Array, aside: Array, sums: Array
) -> None:
    # Θ at shifts, from above, LANES of them side by side: its multipliers and inverse pivots take its place. Positive
    # pivots, Σ ln |pivot| where asked for, and the size of each.
    zero, one, shift, rows = _splat(0.0), _splat(1.0), _load(inner, 0), _load(order, 0)
    over = one / _load(outer, 0)
    low, high = _splat(_PRODUCTS[0]), _splat(_PRODUCTS[1])
    positive, product, size, inverse, coupling = zero, one, zero, one, zero
    store(sums, 1, zero)
    for q in range(int(order.max())):
        # Where a core has ended, pivots of 1 follow, which add nothing.
        here = rows - _splat(float(q))
        multiplier = where_positive(here, coupling * inverse, zero)
        pivot = where_positive(here, shift - over * _load(along, q) - multiplier * coupling, one)
        inverse = one / pivot
        coupling = where_positive(here, zero - over * _load(aside, q), zero)
        store(along, q, multiplier)
        store(aside, q, inverse)
        positive = positive + where_positive(here, where_positive(pivot, one, zero), zero)
        magnitude = where_positive(pivot, pivot, zero - pivot)
        energy = where_positive(pivot, inverse, zero - inverse)
        size = size + where_positive(here, magnitude, zero) + coupling * (coupling * energy)
        if logarithms:
            product = product * magnitude
            if any_positive(low - product) or any_positive(product - high):
                store(sums, 0, product)
                for w in range(LANES):
                    sums[LANES + w] += math.log(sums[w])
                product = one
    if logarithms:
        store(sums, 0, product)
        for w in range(LANES):
            sums[LANES + w] += math.log(sums[w])
    store(sums, 0, positive)
    store(sums, 2, size)


@compile_lanes
def _place(
    a: float,
    c: float,
    of_past: bool,
    gram: Array,
    inside: Array,
    k: int,
    rows: int,
    b: int,
    whole: Array,
    begin: int,
) -> None:
    # The upper triangle of chunk k without the core: of the past, its future is eliminated with the pivot a, otherwise
    # its past with c. It begins at a unit of `whole`.
    middle, behind, border = rows // LANES, b // LANES, rows + b
    of_rows, of_columns = _splat(0.0 if of_past else -1.0 / c), _splat(-1.0 / a if of_past else 0.0)
    here, at = begin, k * rows
    for i in range(rows):
        for u in range(i // LANES, middle):
            store(whole, here + u, of_rows * _load(gram, (at + i) * middle + u))
        for u in range(behind):
            store(whole, here + middle + u, _load(inside, (at + i) * behind + u))
        here += middle + behind
        whole[begin * LANES + i * (border + 1)] += a
    for i in range(b):
        for u in range(i // LANES, behind):
            store(whole, here + middle + u, of_columns * _load(gram, (at + i) * middle + u))
        here += middle + behind
        whole[begin * LANES + (rows + i) * (border + 1)] += c


@compile_lanes
def _take_core(
    multipliers: Array,
    inverses: Array,
    lane: int,
    order: int,
    borders: Array,
    core: int,
    to_rows: float,
    to_columns: float,
    solved: Array,
    scaled: Array,
    middle: int,
    units: int,
    whole: Array,
    begin: int,
) -> float:
    # Takes what a core leaves, which was eliminated in a lane and whose borders begin at a unit, from the chunk that
    # begins at a unit of `whole`; the size of it.
    energies = _splat(0.0)
    for low in range(0, order, _ROWS):
        high = min(low + _ROWS, order)
        # Two units at a time, of which the row before stays in registers.
        for u in range(0, units, 2):
            s, t = _splat(to_rows if u < middle else to_columns), _splat(to_rows if u + 1 < middle else to_columns)
            y, z = _splat(0.0), _splat(0.0)
            if low:
                y, z = _load(solved, (_ROWS - 1) * units + u), _load(solved, (_ROWS - 1) * units + u + 1)
            for q in range(low, high):
                at, row = (q - low) * units + u, q * LANES + lane
                down, over = _splat_at(multipliers, row), _splat_at(inverses, row)
                y = s * _load(borders, core + q * units + u) - down * y
                z = t * _load(borders, core + q * units + u + 1) - down * z
                store(solved, at, y)
                store(solved, at + 1, z)
                store(scaled, at, y * over)
                store(scaled, at + 1, z * over)
                energies = energies + (y * y + z * z) * _splat(abs(inverses[row]))
        for j in range(units):
            for i in range(0, (j + 1) * LANES, 4):
                subtract_products(scaled, i, solved, j, high - low, units, whole, begin + i * units + j)
    return lane_sum(energies)
