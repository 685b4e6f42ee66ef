"""Tridiagonal cores of chunks of positions, by LAPACK."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
from scipy.linalg import blas, lapack

from statesize.spectra.all_cuts.eliminations import Array, Cores

_blas, _lapack = cast("Any", blas), cast("Any", lapack)
# Columns that LAPACK reflects at once, and numbers that it takes beside them; with fewer it takes them one by one.
_REFLECTED, _BESIDE = 32, 65 * 64


def cores_of(matrix: Array, rows: int, columns: int, positions: list[int], width: int) -> Cores:
    """Cores of chunks of b positions of T (rows L, columns L), L a multiple of b = 2ᵐ, at ascending positions > 0."""
    length, at = len(matrix) // rows, np.array(positions, np.int64)
    chunks = np.unique(at // width)
    count, inside = len(chunks), (rows * width, columns * width)
    first = np.append(0, (columns * width * chunks).cumsum())
    diagonal, beside, borders = np.zeros(first[-1]), np.zeros(first[-1]), np.zeros((first[-1], sum(inside)))
    corners, grams = np.zeros((count, *inside)), np.zeros((count, inside[1], inside[1]))
    below_chunk, of_rows = np.zeros((count, 1, 1)), np.zeros((count, inside[0], 1))
    # FᵀF grows from the last chunk to the first; its lower triangle is made.
    gram: Array = np.zeros((0, 0))
    below = length
    for k in reversed(range(count)):
        begin, end = chunks[k] * width, chunks[k] * width + width
        p = columns * begin
        n = p + inside[1]
        corner: Array = np.zeros((n, n), order="F") if k + 1 == count else gram[:n, :n].copy(order="F")
        strip, below = matrix[rows * end : rows * below, :n], end
        gram = _blas.dsyrk(1.0, strip.T, 1.0, corner, lower=1, overwrite_c=1)
        own = matrix[rows * begin : rows * end, :n][::-1]
        corners[k], grams[k] = own[:, p:], gram[p:, p:].T
        below_chunk[k], of_rows[k, :, 0] = gram.diagonal()[:p].sum(), np.einsum("ij,ij->i", own[:, :p], own[:, :p])
        at_k = slice(first[k], first[k + 1])
        diagonal[at_k] = gram.diagonal()[:p]
        borders[at_k, : inside[0]], borders[at_k, inside[0] :] = own[:, :p].T, gram[p:, :p].T
        if p > 1:
            _reduce(gram[:p, :p], diagonal[at_k], beside[at_k], borders[at_k])
    chunk, place = np.searchsorted(chunks, at // width), at % width
    own_rows, own_columns = rows * (width - place), columns * place
    # ‖H‖_F² from the sums in the columns before each chunk, below it and in each of its rows, and in its own columns.
    squares = np.zeros((count, inside[0] + 1, inside[1] + 1)) + below_chunk
    squares[:, 1:] += of_rows.cumsum(1)
    squares[:, :, 1:] += grams.diagonal(0, 1, 2).cumsum(1)[:, None]
    squares[:, 1:, 1:] += (corners**2).cumsum(1).cumsum(2)
    energies = squares[chunk, own_rows, own_columns]
    return Cores(first, diagonal, beside, borders, corners, grams, energies, chunk, own_rows, own_columns)


def _reduce(gram: Array, diagonal: Array, beside: Array, borders: Array) -> None:
    """Put Qᵀ G Q, G known by its lower triangle, into its diagonal and what stands beside it, and Qᵀ into borders."""
    p, n = borders.shape
    reflected, diagonal[:], beside[:-1], factors, _ = _lapack.dsytrd(gram, lower=1, lwork=_REFLECTED * p)
    # Reflectors stand below the diagonal, from the second row on. Read from there on without a copy, each has one more
    # row, which holds an entry of the first row, and is to do nothing.
    reflected[0, 1:] = 0
    reflectors: Array = reflected.T.reshape(-1)[1 : 1 + p * (p - 1)].reshape(p - 1, p).T
    turned = np.zeros((n, p)).T
    turned[:-1] = borders[1:]
    lwork = _REFLECTED * n + _BESIDE
    borders[1:] = _lapack.dormqr("L", "T", reflectors, factors, turned, lwork, overwrite_c=1)[0][:-1]
