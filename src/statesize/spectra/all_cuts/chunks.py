"""Tridiagonal cores of chunks of positions, by LAPACK."""

from __future__ import annotations

import numpy as np
from scipy.linalg import lapack as routines

from statesize.parallel.threads import end_if_unwanted
from statesize.spectra.all_cuts.eliminations import Array, Cores

_REFLECTED = 32  # columns that LAPACK reflects at once


def cores_of(matrix: Array, rows: int, columns: int, positions: list[int], width: int) -> Cores:
    """Cores of chunks of b positions of T (rows L, columns L), L a multiple of b, at ascending positions > 0."""
    length, at = len(matrix) // rows, np.array(positions, np.int64)
    chunks = np.unique(at // width)
    count, inside = len(chunks), (rows * width, columns * width)
    first = np.append(0, (columns * width * chunks).cumsum())
    diagonal, beside, borders = np.zeros(first[-1]), np.zeros(first[-1]), np.zeros((first[-1], sum(inside)))
    corners, grams = np.zeros((count, *inside)), np.zeros((count, inside[1], inside[1]))
    # FᵀF grows from the last chunk to the first.
    gram, below = np.zeros((0, 0)), length
    for k in reversed(range(count)):
        end_if_unwanted()
        begin, end = chunks[k] * width, chunks[k] * width + width
        p = columns * begin
        strip = matrix[rows * end : rows * below, : p + inside[1]]
        corner, gram, below = gram[: p + inside[1], : p + inside[1]], strip.T @ strip, end
        if corner.size:
            gram += corner
        own = matrix[rows * begin : rows * end, : p + inside[1]][::-1]
        at_k = slice(first[k], first[k + 1])
        borders[at_k] = np.concatenate([own[:, :p].T, gram[:p, p:]], 1)
        corners[k], grams[k] = own[:, p:], gram[p:, p:]
        diagonal[at_k] = gram.diagonal()[:p]
        if p > 1:
            reflected, diagonal[at_k], beside[at_k][:-1], factors, _ = routines.dsytrd(  # pyright: ignore[reportAttributeAccessIssue, reportUnknownVariableType]
                gram[:p, :p].T, lower=1, lwork=_REFLECTED * p
            )
            turned = routines.dormqr(  # pyright: ignore[reportAttributeAccessIssue, reportUnknownVariableType]
                "L", "T", reflected[1:, :-1], factors, borders[at_k][1:], lwork=_REFLECTED * sum(inside)
            )
            borders[at_k][1:] = turned[0]
    chunk, place = np.searchsorted(chunks, at // width), at % width
    return Cores(first, diagonal, beside, borders, corners, grams, chunk, rows * (width - place), columns * place)
