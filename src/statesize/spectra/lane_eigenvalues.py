"""Eigenvalues of several small symmetric matrices side by side, one in each lane of the last dimension."""

from __future__ import annotations

import math
from typing import Any, cast

import numba
import numpy as np
import numpy.typing as npt

Lanes = npt.NDArray[np.float64]

compile_lanes = cast("Any", numba).njit(cache=True, nogil=True, fastmath={"contract"}, error_model="numpy")


@compile_lanes
def eigenvalues(matrix: Lanes, diagonal: Lanes, squares: Lanes, work: Lanes) -> None:
    """Eigenvalues of symmetric matrices (n, n, W), unsorted, into `diagonal` (n, W); the lower triangles are destroyed.

    Householder tridiagonalisation, then the root-free QR iteration of Pal, Walker and Kahan (Parlett, The Symmetric
    Eigenvalue Problem, section 8.15). The error is a small multiple of eps times the norm.

    Args:
        matrix: (n, n, W), lower triangles.
        diagonal: (n, W), the result.
        squares: (n, W), for the squared subdiagonal.
        work: (2 n + 8, W).
    """
    _tridiagonalise(matrix, diagonal, squares, work)
    _root_free_qr(diagonal, squares, work)


@compile_lanes
def _tridiagonalise(G: Lanes, d: Lanes, e2: Lanes, work: Lanes) -> None:
    n, W = G.shape[0], G.shape[2]
    v, p, t = work[:n], work[n : 2 * n], work[2 * n :]
    for k in range(n - 2):
        m = n - k - 1
        for w in range(W):
            t[0, w] = 0.0
        for i in range(1, m):
            for w in range(W):
                x = G[k + 1 + i, k, w]
                t[0, w] += x * x
                v[i, w] = x
        for w in range(W):
            x = G[k + 1, k, w]
            square = t[0, w] + x * x
            norm = math.sqrt(square)
            v[0, w] = x + norm if x >= 0.0 else x - norm
            length = t[0, w] + v[0, w] * v[0, w]
            t[1, w] = 2.0 / length if length > 0.0 else 0.0
            e2[k, w] = square
            d[k, w] = G[k, k, w]
        for i in range(m):
            for w in range(W):
                p[i, w] = 0.0
        for j in range(m):
            for w in range(W):
                t[2, w] = G[k + 1 + j, k + 1 + j, w] * v[j, w]
            for i in range(j + 1, m):
                for w in range(W):
                    g = G[k + 1 + i, k + 1 + j, w]
                    p[i, w] += g * v[j, w]
                    t[2, w] += g * v[i, w]
            for w in range(W):
                p[j, w] += t[2, w]
        for w in range(W):
            t[3, w] = 0.0
        for i in range(m):
            for w in range(W):
                p[i, w] *= t[1, w]
                t[3, w] += p[i, w] * v[i, w]
        for w in range(W):
            t[3, w] *= 0.5 * t[1, w]
        for i in range(m):
            for w in range(W):
                p[i, w] -= t[3, w] * v[i, w]
        for j in range(m):
            for i in range(j, m):
                for w in range(W):
                    G[k + 1 + i, k + 1 + j, w] -= v[i, w] * p[j, w] + p[i, w] * v[j, w]
    for w in range(W):
        d[n - 1, w] = G[n - 1, n - 1, w]
    if n > 1:
        for w in range(W):
            d[n - 2, w] = G[n - 2, n - 2, w]
            x = G[n - 1, n - 2, w]
            e2[n - 2, w] = x * x


@compile_lanes
def _root_free_qr(d: Lanes, e2: Lanes, work: Lanes) -> None:
    n, W = d.shape
    scale, shift, cosine, sine, gamma, p = work[0], work[1], work[2], work[3], work[4], work[5]
    for w in range(W):
        scale[w] = 0.0
    for i in range(n):
        for w in range(W):
            scale[w] = max(scale[w], d[i, w] * d[i, w])
    for i in range(n - 1):
        for w in range(W):
            scale[w] = max(scale[w], e2[i, w])
    for last in range(n - 1, 0, -1):
        for _ in range(60):
            open_ = 0.0
            for w in range(W):
                open_ = max(open_, e2[last - 1, w] - 1e-32 * scale[w])
            if open_ <= 0.0:
                break
            for w in range(W):
                square = e2[last - 1, w]
                half = 0.5 * (d[last - 1, w] - d[last, w])
                root = math.sqrt(half * half + square)
                toward = half + root if half >= 0.0 else half - root
                shift[w] = d[last, w] - (square / toward if toward != 0.0 else 0.0)
                cosine[w] = 1.0
                sine[w] = 0.0
                gamma[w] = d[0, w] - shift[w]
                p[w] = gamma[w] * gamma[w]
            for i in range(last):
                _rotate(d, e2, i, shift, cosine, sine, gamma, p)
            for w in range(W):
                e2[last - 1, w] = sine[w] * p[w]
                d[last, w] = shift[w] + gamma[w]


@compile_lanes
def _rotate(d: Lanes, e2: Lanes, i: int, shift: Lanes, cosine: Lanes, sine: Lanes, gamma: Lanes, p: Lanes) -> None:
    for w in range(d.shape[1]):
        square = e2[i, w]
        radius = p[w] + square
        if i > 0:
            e2[i - 1, w] = sine[w] * radius
        before = cosine[w]
        inverse = 1.0 / radius if radius > 0.0 else 0.0
        c = p[w] * inverse if radius > 0.0 else 1.0
        s = square * inverse
        old = gamma[w]
        alpha = d[i + 1, w]
        new = c * (alpha - shift[w]) - s * old
        d[i, w] = old + (alpha - new)
        p[w] = new * new / c if c > 0.0 else before * square
        cosine[w] = c
        sine[w] = s
        gamma[w] = new
