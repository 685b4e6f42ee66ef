"""Square-root factors of the Gramians of small diagonal recurrences, eight recurrences side by side.

A triangular factor of n rows and columns, n even, is an array of `factor_size(n)` times 8 doubles: rows in pairs that
begin at the same column, so that the second of a pair begins with a 0.
"""

from __future__ import annotations

from typing import Any

from statesize.spectra.lanes.eigenvalues import Array, load, splat
from statesize.spectra.lanes.vectors import compile_lanes, square_root, store, where_positive


@compile_lanes
def factor_size(n: int) -> int:
    """Places of a triangular factor."""
    return n * (n + 2) // 2


@compile_lanes
def append(source: Array, from_: int, target: Array, to: int, scale: Array, row: Array, n: int) -> Any:
    """R of qr([R₀ Diag(scale); row]) by Givens rotations into a place that may be its own; returns ‖R‖_F."""
    # source holds R₀ from `from_` on; scale and row (n · 8), the row is destroyed.
    zero, one = splat(0.0), splat(1.0)
    total, k = zero, 0
    for r in range(n):
        if r % 2:
            store(target, to + k, zero)
            k += 1
        x, y = load(source, from_ + k) * load(scale, r), load(row, r)
        square = x * x + y * y
        h = square_root(square)
        inverse = one / h
        cosine, sine = where_positive(h, x * inverse, one), where_positive(h, y * inverse, zero)
        store(target, to + k, h)
        total = total + square
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
