"""Elimination of the bordered blocks of a chunk at all its positions, eight chunks in the lanes of one instruction.

S_j = [[P[r j:, r j:], X[r j:, :j]], [·, C[:j, :j]]] for j = 0 … b − 1, with P and C symmetric and r rows per position.
The positions of a half share what they all keep: the first half keeps the rows of the second, the second the columns of
the first. These are eliminated once, the rest is a problem of half the size, and so on down to single positions: 2.2 b³
operations for all b positions where r = 1 (docs/appendix/engine-mathematics.md, "Counts"). Products are taken in tiles
of 4 × 4 entries that stay in registers.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from statesize.spectra.lanes.vectors import (
    VERSION,
    compile_entry,
    compile_lanes,
    exponent,
    lane_functions,
    mantissa,
    store,
    where_positive,
)

Array = npt.NDArray[np.float64]

LANES = 8
"""Chunks that are eliminated side by side: as many doubles as the widest vector registers hold."""
_LN2 = math.log(2.0)

_load, _splat, _splat_at = lane_functions(LANES)


@compile_entry
def eliminate_chunks(
    whole: Array,
    readouts: int,
    positive: npt.NDArray[np.int64],
    logarithm: Array,
    size: Array,
    version: int = VERSION,
) -> None:
    """Positive pivots, Σ ln |pivot| and Σ (|pivot| + |row|²/|pivot|), (N, b) each, of [[P, X], [·, C]] (N, n, n)."""
    # n = (r + 1) b, b a power of 2; the upper triangles of `whole` are used. Logarithms (N, 0) are not taken.
    eliminate_each(whole, readouts, positive, logarithm, size)


@compile_lanes
def eliminate_each(whole: Array, readouts: int, positive: npt.NDArray[np.int64], logarithm: Array, size: Array) -> None:
    """As `eliminate_chunks`, to be called from compiled code."""
    r, logarithms = readouts, logarithm.size > 0
    N, b = whole.shape[0], whole.shape[1] // (r + 1)
    # Blocks hold P, X and C with the lane last, of P and C the upper triangles; nodes of a level lie one below another.
    entries = (r * r + r + 1) * b * b * LANES
    here, there = np.empty(entries), np.empty(entries)
    # A child eliminates at most r b / 2 rows, beside which it keeps as many and b / 2 columns.
    most = (r * (2 * r + 1) * b * b // 4 + r * r + r + 1) * LANES
    panel, scaled = np.empty(most), np.empty(most)
    pivots = np.empty(r * b * LANES)
    # Before and after a level, by node: positive pivots, logarithms of pivots, sizes.
    before, after = np.empty(3 * b * LANES), np.empty(3 * b * LANES)
    for first in range(0, N, LANES):
        _pack(whole, r, first, here)
        before[:] = 0.0
        h, nodes = b, 1
        while h > 1:
            h //= 2
            for node in range(nodes):
                for child in range(2):
                    parent, into = node * 3, (2 * node + child) * 3
                    if h >= 4:
                        eliminated = _eliminate_tiles(here, there, panel, scaled, pivots, r, node, h, b, child)
                    else:
                        eliminated = _eliminate_small(here, there, panel, pivots, r, node, h, b, child)
                    store(after, into + 2, _load(before, parent + 2) + eliminated)
                    _tally(pivots, h if child else r * h, logarithms, before, parent, after, into)
            nodes *= 2
            here, there = there, here
            before, after = after, before
        for j in range(b):
            eliminated = _eliminate_position(here, panel, pivots, r, j, b)
            store(before, 3 * j + 2, _load(before, 3 * j + 2) + eliminated)
            _tally(pivots, r, logarithms, before, 3 * j, before, 3 * j)
            for w in range(min(LANES, N - first)):
                at = 3 * j * LANES + w
                positive[first + w, j] = int(before[at])
                if logarithms:
                    logarithm[first + w, j] = before[at + LANES]
                size[first + w, j] = before[at + 2 * LANES]


@compile_lanes
def _pack(whole: Array, r: int, first: int, blocks: Array) -> None:
    N, columns = whole.shape[0], whole.shape[1]
    b = columns // (r + 1)
    rows = r * b
    # All lanes of an entry in a row, as they lie in one line of the cache.
    for i in range(columns):
        for j in range(i, rows):
            for w in range(LANES):
                blocks[(i * rows + j) * LANES + w] = whole[min(first + w, N - 1), i, j]
        for j in range(max(i, rows), columns):
            for w in range(LANES):
                blocks[(rows * (rows - 1) + i * b + j) * LANES + w] = whole[min(first + w, N - 1), i, j]


@compile_lanes
def _gather(here: Array, panel: Array, r: int, node: int, h: int, b: int, child: int, tile: int) -> None:
    # The rows that a child eliminates, [pivot block | to its rows | to its columns], in tiles of so many columns, one
    # tile after another; of the pivot block the tiles on the diagonal and right of it.
    # A node of 2h positions lies in rows 2h r · node … of P and X and 2h · node … of C. Child 0 eliminates the rows of
    # the second half, child 1 the columns of the first.
    kept, eliminated = r * h, h if child else r * h
    P, X, C = 2 * kept * node * r * b, r * r * b * b + 2 * kept * node * b, (r * r + r) * b * b + 2 * h * node * b
    for i in range(eliminated):
        for j in range(i - i % tile, eliminated + kept + h):
            low, high = min(i, j), max(i, j)
            if child == 0:
                if j < kept:
                    source = P + (kept + low) * r * b + kept + high
                elif j < 2 * kept:
                    source = P + (j - kept) * r * b + kept + i
                else:
                    source = X + (kept + i) * b + j - 2 * kept
            elif j < h:
                source = C + low * b + high
            elif j < h + kept:
                source = X + (kept + j - h) * b + i
            else:
                source = C + i * b + j - kept
            store(panel, (j // tile) * eliminated * tile + i * tile + j % tile, _load(here, source))


@compile_lanes
def _keep(here: Array, there: Array, r: int, node: int, h: int, b: int, child: int) -> tuple[int, int, int]:
    # Copies what a child keeps; it begins in P, X and C at the numbers that are returned.
    kept, at = r * h, 2 * node + child
    P, X, C = kept * at * r * b, r * r * b * b + kept * at * b, (r * r + r) * b * b + h * at * b
    for i in range(kept):
        for j in range(i, kept):
            store(there, P + i * r * b + j, _load(here, P + i * r * b + kept * child + j))
        for j in range(h):
            store(there, X + i * b + j, _load(here, X + i * b + h * child + j))
    for i in range(h):
        for j in range(i, h):
            store(there, C + i * b + j, _load(here, C + i * b + h * child + j))
    return P, X, C


@compile_lanes
def _eliminate_tiles(
    here: Array,
    there: Array,
    panel: Array,
    scaled: Array,
    pivots: Array,
    r: int,
    node: int,
    h: int,
    b: int,
    child: int,
) -> Any:
    # `panel` becomes D Lᵀ of the rows that are eliminated, S = L D Lᵀ, and `scaled` the same rows of Lᵀ.
    _gather(here, panel, r, node, h, b, child, 4)
    P, X, C = _keep(here, there, r, node, h, b, child)
    e = h if child else r * h
    tiles, of_rows, of_columns = e // 4, r * h // 4, h // 4
    together, size, one = tiles + of_rows + of_columns, _splat(0.0), _splat(1.0)
    for k in range(tiles):
        row = 16 * k
        for t in range(k if k else together, together):
            _subtract(scaled, 4 * k * e, panel, 4 * t * e, 4 * k, panel, 4 * t * e + row, 4)
        at = 4 * k * e + row
        a01, a02, a03 = _load(panel, at + 1), _load(panel, at + 2), _load(panel, at + 3)
        p0 = _load(panel, at)
        i0 = one / p0
        l01, l02, l03 = a01 * i0, a02 * i0, a03 * i0
        p1 = _load(panel, at + 5) - l01 * a01
        i1 = one / p1
        a12, a13 = _load(panel, at + 6) - l01 * a02, _load(panel, at + 7) - l01 * a03
        l12, l13 = a12 * i1, a13 * i1
        p2 = _load(panel, at + 10) - l02 * a02 - l12 * a12
        i2 = one / p2
        a23 = _load(panel, at + 11) - l02 * a03 - l12 * a13
        l23 = a23 * i2
        p3 = _load(panel, at + 15) - l03 * a03 - l13 * a13 - l23 * a23
        i3 = one / p3
        store(pivots, 4 * k, p0)
        store(pivots, 4 * k + 1, p1)
        store(pivots, 4 * k + 2, p2)
        store(pivots, 4 * k + 3, p3)
        s0, s1, s2, s3 = a01 * l01 + a02 * l02 + a03 * l03, a12 * l12 + a13 * l13, a23 * l23, _splat(0.0)
        for t in range(k + 1, together):
            for c in range(4):
                at = 4 * t * e + row + c
                y0 = _load(panel, at)
                y1 = _load(panel, at + 4) - l01 * y0
                y2 = _load(panel, at + 8) - l02 * y0 - l12 * y1
                y3 = _load(panel, at + 12) - l03 * y0 - l13 * y1 - l23 * y2
                store(panel, at + 4, y1)
                store(panel, at + 8, y2)
                store(panel, at + 12, y3)
                l0, l1, l2, l3 = y0 * i0, y1 * i1, y2 * i2, y3 * i3
                store(scaled, at, l0)
                store(scaled, at + 4, l1)
                store(scaled, at + 8, l2)
                store(scaled, at + 12, l3)
                s0, s1, s2, s3 = s0 + y0 * l0, s1 + y1 * l1, s2 + y2 * l2, s3 + y3 * l3
        size = size + _magnitude(p0) + _magnitude(p1) + _magnitude(p2) + _magnitude(p3)
        size = size + _magnitude(s0) + _magnitude(s1) + _magnitude(s2) + _magnitude(s3)
    to_rows, to_columns = 4 * e * tiles, 4 * e * (tiles + of_rows)
    for i in range(of_rows):
        left = to_rows + 4 * e * i
        for j in range(i, of_rows):
            _subtract(scaled, left, panel, to_rows + 4 * e * j, e, there, P + 4 * i * r * b + 4 * j, r * b)
        for j in range(of_columns):
            _subtract(scaled, left, panel, to_columns + 4 * e * j, e, there, X + 4 * i * b + 4 * j, b)
    for i in range(of_columns):
        for j in range(i, of_columns):
            at = C + 4 * i * b + 4 * j
            _subtract(scaled, to_columns + 4 * e * i, panel, to_columns + 4 * e * j, e, there, at, b)
    return size


@compile_lanes
def _subtract(left: Array, a: int, right: Array, r: int, count: int, target: Array, t: int, stride: int) -> None:
    # Takes Σ_k left[a + 4k + i] right[r + 4k + j], k < count, from a tile of 4 × 4, whose rows are `stride` apart.
    # In quarters, whose sums stay in registers where these are narrower too.
    for i in range(0, 4, 2):
        for j in range(0, 4, 2):
            _subtract_quarter(left, a + i, right, r + j, count, target, t + i * stride + j, stride)


@compile_lanes
def _subtract_quarter(
    left: Array, a: int, right: Array, r: int, count: int, target: Array, t: int, stride: int
) -> None:
    c00, c01, c10, c11 = (
        _load(target, t), _load(target, t + 1), _load(target, t + stride), _load(target, t + stride + 1)
    )  # fmt: skip
    for k in range(0, 4 * count, 4):
        y0, y1 = _load(right, r + k), _load(right, r + k + 1)
        x0, x1 = _load(left, a + k), _load(left, a + k + 1)
        c00, c01, c10, c11 = c00 - x0 * y0, c01 - x0 * y1, c10 - x1 * y0, c11 - x1 * y1
    store(target, t, c00)
    store(target, t + 1, c01)
    store(target, t + stride, c10)
    store(target, t + stride + 1, c11)


@compile_lanes
def subtract_products(
    left: Array, i: int, right: Array, j: int, count: int, units: int, target: Array, at: int
) -> None:
    """Takes Σ_q left[q, i …] right[q, j …], q < count, from 4 rows of the unit `at`; rows of all three are as long."""
    # Its sums stay in registers, where these are narrower too.
    a, b, c, d = (
        _load(target, at), _load(target, at + units), _load(target, at + 2 * units), _load(target, at + 3 * units)
    )  # fmt: skip
    for q in range(count):
        y, row = _load(right, j + q * units), i + q * units * LANES
        a = a - _splat_at(left, row) * y
        b = b - _splat_at(left, row + 1) * y
        c = c - _splat_at(left, row + 2) * y
        d = d - _splat_at(left, row + 3) * y
    store(target, at, a)
    store(target, at + units, b)
    store(target, at + 2 * units, c)
    store(target, at + 3 * units, d)


@compile_lanes
def _eliminate_small(
    here: Array, there: Array, panel: Array, pivots: Array, r: int, node: int, h: int, b: int, child: int
) -> Any:
    # The same for h = 1 or 2, whose panel is one column after another.
    _gather(here, panel, r, node, h, b, child, 1)
    P, X, C = _keep(here, there, r, node, h, b, child)
    e, kept, size = h if child else r * h, r * h, _splat(0.0)
    for k in range(e):
        inverse, eliminated = _pivot(panel, pivots, k, e, e + kept + h)
        size = size + eliminated
        for i in range(kept):
            factor = _load(panel, (e + i) * e + k) * inverse
            for j in range(i, kept):
                _take(there, P + i * r * b + j, factor, _load(panel, (e + j) * e + k))
            for j in range(h):
                _take(there, X + i * b + j, factor, _load(panel, (e + kept + j) * e + k))
        for i in range(h):
            factor = _load(panel, (e + kept + i) * e + k) * inverse
            for j in range(i, h):
                _take(there, C + i * b + j, factor, _load(panel, (e + kept + j) * e + k))
    return size


@compile_lanes
def _eliminate_position(here: Array, panel: Array, pivots: Array, r: int, j: int, b: int) -> Any:
    # The r rows of one position, with which nothing is left.
    size = _splat(0.0)
    for i in range(r):
        for k in range(i, r):
            store(panel, k * r + i, _load(here, (r * j + i) * r * b + k))
    for k in range(r):
        _, eliminated = _pivot(panel, pivots, k, r, r)
        size = size + eliminated
    return size


@compile_lanes
def _pivot(panel: Array, pivots: Array, k: int, rows: int, columns: int) -> tuple[Any, Any]:
    # Takes row k from those below it that are eliminated too; 1 / pivot, and the size of what was taken from all.
    pivot = _load(panel, k * rows + k)
    inverse = _splat(1.0) / pivot
    store(pivots, k, pivot)
    energy = _splat(0.0)
    for j in range(k + 1, columns):
        y = _load(panel, j * rows + k)
        energy = energy + y * (y * inverse)
    for i in range(k + 1, rows):
        factor = _load(panel, i * rows + k) * inverse
        for j in range(i, columns):
            _take(panel, j * rows + i, factor, _load(panel, j * rows + k))
    return inverse, _magnitude(pivot) + _magnitude(energy)


@compile_lanes
def _take(target: Array, at: int, factor: Any, y: Any) -> None:
    store(target, at, _load(target, at) - factor * y)


@compile_lanes
def _magnitude(x: Any) -> Any:
    return where_positive(x, x, _splat(0.0) - x)


@compile_lanes
def _tally(pivots: Array, h: int, logarithms: bool, before: Array, parent: int, after: Array, into: int) -> None:
    # Adds signs, and logarithms: mantissas are multiplied and exponents added, so that nothing overflows.
    zero, one = _splat(0.0), _splat(1.0)
    count = _load(before, parent)
    for k in range(h):
        count = count + where_positive(_load(pivots, k), one, zero)
    store(after, into, count)
    if not logarithms:
        return
    exponents, product, doubt = zero, one, zero
    for k in range(h):
        pivot = _load(pivots, k)
        exponents = exponents + exponent(pivot)
        product = product * mantissa(pivot)
        # NaN of infinite pivots and NaN, which have a mantissa too.
        doubt = doubt + (pivot - pivot)
    store(pivots, 0, product)
    for w in range(LANES):
        pivots[w] = math.log(pivots[w])
    store(after, into + 1, _load(before, parent + 1) + _load(pivots, 0) + _splat(_LN2) * exponents + doubt)
