"""Gram matrices of what lies outside the chunks of positions, from one chunk to the next, and their tridiagonal forms.

Upper triangles of symmetric matrices are used, with the squares of LANES on the diagonal.
"""

from __future__ import annotations

import math

import numpy as np

from statesize.spectra.lanes.elimination import Array, subtract_products
from statesize.spectra.lanes.vectors import (
    VERSION,
    compile_entry,
    compile_lanes,
    lane_functions,
    lane_sum,
    store,
    where_positive,
)

LANES = 8
"""Columns in one instruction; all sizes are multiples of it."""
# Reflections that the rows below take together.
_PANEL = 8
# Below this a square root of a sum of squares may have no digits left.
_TINY = 1e-307

_load, _splat, _splat_at = lane_functions(LANES)


@compile_entry
def add_chunk(
    strict: Array,
    gram: Array,
    k: int,
    half: int,
    needed: bool,
    first: int,
    reach: int,
    diagonal: Array,
    beside: Array,
    borders: Array,
    grams: Array,
    inside: Array,
    energy: Array,
    fourth: Array,
    version: int = VERSION,
) -> None:
    """The parts of `Cores` of chunk k of T (E, r L, L), whose core begins at `first`; Gram matrices (E, n, n) grow."""
    # Before the chunk `half`, these are of the columns up to the end of the chunk, over all rows after it, and its own
    # rows join them; from there on, of its rows and all later ones, over the columns before it, and its columns join.
    # Columns before `reach` are 0 in all these rows, or rows from there on in all these columns.
    rows, b, n = inside.shape[2], inside.shape[3], gram.shape[1]
    units, past, top, left = n // LANES, k < half, rows * k, b * k
    # Entries of the Gram matrix that the chunk has, and of these its own and the core's.
    low = reach if past else top - rows * half
    high = left + b if past else reach - rows * half
    own, size, core, p = (left, b, low, left - low) if past else (low, rows, low + rows, high - low - rows)
    count, width = rows if past else b, p + rows + b
    # Entry by entry: numba compiles each assignment to a slice, with its errors, for a second.
    joining, minus = np.empty((count, n)), np.empty(count * n)
    whole, work = np.empty((p if needed else 0, width)), np.empty((3 * _PANEL + 3) * width)
    for e in range(len(strict)):
        for i in range(rows):
            for j in range(b):
                inside[e, k, i, j] = strict[e, top + i, left + j]
        for i in range(count):
            for j in range(low, high):
                joining[i, j] = strict[e, top + i, j] if past else strict[e, top + j - low, left + i]
                minus[i * n + j] = -joining[i, j]
        for i in range(size):
            for j in range(i, size):
                grams[e, k, i, j] = grams[e, k, j, i] = gram[e, own + i, own + j]
        for i in range(low, high):
            energy[e, k] += gram[e, i, i]
        if needed:
            for i in range(p):
                for j in range(i // LANES * LANES, p):
                    whole[i, j] = gram[e, core + i, core + j]
                for j in range(rows):
                    whole[i, p + j] = joining[j, core + i] if past else gram[e, own + j, core + i]
                for j in range(b):
                    whole[i, p + rows + j] = gram[e, core + i, own + j] if past else joining[j, core + i]
            part = slice(first, first + p)
            _tridiagonalise(whole.ravel(), diagonal[e, part], beside[e, part], width, work)
            for i in range(p):
                for j in range(p, width):
                    borders[e, first + i, j - p] = whole[i, j]
        plus, flat, squares = joining.ravel(), gram[e].ravel(), _splat(0.0)
        for i in range(low, high, 4):
            for u in range(i // LANES, high // LANES):
                at = i * units + u
                subtract_products(minus, i, plus, u, count, units, flat, at)
                weight = _splat(1.0 if u == i // LANES else 2.0)
                for q in range(at, at + 4 * units, units):
                    y = _load(flat, q)
                    squares = squares + weight * (y * y)
        fourth[e, k] = lane_sum(squares)


@compile_entry
def tridiagonalise(whole: Array, diagonal: Array, beside: Array, version: int = VERSION) -> None:
    """Θ = Qᵀ G Q by its diagonal and the entries beside it, a 0 last, (E, p) each; [G | W] (E, p, p + m): W to Qᵀ W."""
    work = np.empty((3 * _PANEL + 3) * whole.shape[2])
    for entry in range(len(diagonal)):
        _tridiagonalise(whole[entry].ravel(), diagonal[entry], beside[entry], whole.shape[2], work)


@compile_lanes
def _tridiagonalise(whole: Array, diagonal: Array, beside: Array, width: int, work: Array) -> None:
    # By reflections I − τ v vᵀ, each of which takes v wᵀ + w vᵀ from G, and v wᵀ from W (Golub and Van Loan, Matrix
    # Computations, section 8.3.1). `work` holds v, w and once more v of a panel of them, which the rows of the panel
    # take one by one, and those below all at once.
    p, units = len(diagonal), width // LANES
    core, w, product = p // LANES, _PANEL * units, 3 * _PANEL * units
    for begin in range(0, p, _PANEL):
        end = min(begin + _PANEL, p)
        for k in range(begin, end):
            s, first, row = k - begin, (k + 1) // LANES, k * units
            for u in range(k // LANES, units):
                y = _load(whole, row + u)
                for t in range(s):
                    y = y - _splat_at(work, t * width + k) * _load(work, w + t * units + u)
                    if u < core:
                        y = y - _splat_at(work, (_PANEL + t) * width + k) * _load(work, t * units + u)
                store(whole, row + u, y)
            diagonal[k] = whole[k * width + k]
            if k == p - 1:
                beside[k] = 0.0
                break
            factor, beside[k] = _reflection(whole, k * width, k + 1, core, work, s * units)
            along = _multiply(whole, k + 1, p, units, work, s, product)
            scale = _splat(factor)
            half = _splat(0.5 * factor * along)
            for u in range(first, core):
                v = _load(work, s * units + u)
                store(work, 2 * w + s * units + u, v)
                store(work, w + s * units + u, scale * (_load(work, product + u) - half * v))
            for u in range(core, units):
                store(work, w + s * units + u, scale * _load(work, product + u))
        for i in range(end, p, 4):
            for u in range(i // LANES, units):
                count = 2 * _PANEL if u < core else _PANEL
                subtract_products(work, i, work, w + u, count, units, whole, i * units + u)


@compile_lanes
def _reflection(whole: Array, row: int, first: int, core: int, work: Array, v: int) -> tuple[float, float]:
    # τ, the entry that is left of a row from `first` on, and v with a leading 1 and zeros before; τ = 0 where nothing
    # but that entry is there. Units of v begin at v.
    begin, head, zero = first // LANES, whole[row + first], _splat(0.0)
    for u in range(begin, core):
        store(work, v + u, _load(whole, row // LANES + u))
    for j in range(begin * LANES, first + 1):
        work[v * LANES + j] = 0.0
    total = zero
    for u in range(begin, core):
        y = _load(work, v + u)
        total = total + where_positive(y, y, zero - y)
    size = lane_sum(total)
    if size < _TINY:
        for u in range(begin, core):
            store(work, v + u, zero)
        return 0.0, head
    size += abs(head)
    inverse, total = _splat(1.0 / size), zero
    for u in range(begin, core):
        y = _load(work, v + u) * inverse
        total = total + y * y
    left = -math.copysign(size * math.sqrt(lane_sum(total) + (head / size) ** 2), head)
    inverse = _splat(1.0 / (head - left))
    for u in range(begin, core):
        store(work, v + u, _load(work, v + u) * inverse)
    work[v * LANES + first] = 1.0
    return (left - head) / left, left


@compile_lanes
def _multiply(whole: Array, first: int, p: int, units: int, work: Array, s: int, product: int) -> float:
    # [G | W]ᵀ v, of rows and columns from `first` on, without what s reflections before v took; vᵀ times that.
    core, begin, v, w = p // LANES, first // LANES, s * units, _PANEL * units
    # Behind the product, which rows above the diagonal make, what those below it add, and products with reflections.
    added, taken, zero = product + units, (product + 2 * units) * LANES, _splat(0.0)
    for u in range(begin, units):
        store(work, product + u, zero)
        store(work, added + u, zero)
    for t in range(s):
        along_v, along_w = zero, zero
        for u in range(begin, core):
            x = _load(work, v + u)
            along_v = along_v + _load(work, t * units + u) * x
            along_w = along_w + _load(work, w + t * units + u) * x
        work[taken + t], work[taken + _PANEL + t] = lane_sum(along_v), lane_sum(along_w)
    for i in range(first // 4 * 4, p, 4):
        at, row, square = v * LANES + i, i * units, i // LANES
        v0, v1, v2, v3 = _splat_at(work, at), _splat_at(work, at + 1), _splat_at(work, at + 2), _splat_at(work, at + 3)
        d0, d1, d2, d3 = zero, zero, zero, zero
        for u in range(square, units):
            k = row + u
            y0, y1, y2, y3 = (
                _load(whole, k), _load(whole, k + units), _load(whole, k + 2 * units), _load(whole, k + 3 * units)
            )  # fmt: skip
            store(work, product + u, _load(work, product + u) + ((v0 * y0 + v1 * y1) + (v2 * y2 + v3 * y3)))
            if square < u < core:
                x = _load(work, v + u)
                d0, d1, d2, d3 = d0 + y0 * x, d1 + y1 * x, d2 + y2 * x, d3 + y3 * x
        at = added * LANES + i
        work[at], work[at + 1], work[at + 2], work[at + 3] = lane_sum(d0), lane_sum(d1), lane_sum(d2), lane_sum(d3)
    along = zero
    for u in range(begin, units):
        y = _load(work, product + u) + _load(work, added + u)
        for t in range(s):
            y = y - _splat_at(work, taken + t) * _load(work, w + t * units + u)
            if u < core:
                y = y - _splat_at(work, taken + _PANEL + t) * _load(work, t * units + u)
        store(work, product + u, y)
        if u < core:
            along = along + y * _load(work, v + u)
    return lane_sum(along)
