"""Inertia and log-determinant of the bordered blocks of a chunk, at all its positions at once.

The positions of a half share what they all keep: the first half keeps the rows of the second, the second the columns of
the first. Those are eliminated once, the rest is a problem of half the size, and so on down to single positions:
2.2 b³ operations for all b positions of a chunk (docs/engines.md, "Counts").
"""

from __future__ import annotations

import math
from typing import Any, cast

import numba
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

# Chunks eliminated side by side, so that each arithmetic instruction serves all of them.
_LANES = 8

Lanes = npt.NDArray[np.float64]

_compile = cast("Any", numba).njit(cache=True, nogil=True, fastmath={"contract"}, error_model="numpy")


def eliminate(rows: Tensor, cross: Tensor, columns: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Positive pivots, Σ ln |pivot| and growth, (N, b), of S_j = [[P[j:, j:], X[j:, :j]], [·, C[:j, :j]]]."""
    # P and C symmetric, all (N, b, b). The growth is the largest |row|²/|pivot| met: the computed elimination, without
    # pivoting, is exact for some S_j + E with ‖E‖ of the order of b · eps · growth.
    device, b = rows.device, rows.shape[-1]
    # Rows added behind have pivot −1 in every S_j: nothing to count, and a logarithm of 0.
    missing = (1 << (b - 1).bit_length()) - b
    given = [_padded(part, missing).cpu().contiguous().numpy() for part in (rows, cross, columns)]
    size = given[0].shape[:2]
    positive, logarithm, growth = np.empty(size, np.int64), np.empty(size), np.empty(size)
    _eliminate_all(*given, positive, logarithm, growth)
    results = (torch.from_numpy(part)[:, :b].to(device) for part in (positive, logarithm, growth))
    return next(results), next(results), next(results)


def _padded(block: Tensor, missing: int) -> Tensor:
    if not missing:
        return block
    padded = torch.nn.functional.pad(block, (0, missing, 0, missing))
    padded.diagonal(0, -2, -1)[:, -missing:] = -1
    return padded


@_compile
def _eliminate_all(
    rows: Lanes,
    cross: Lanes,
    columns: Lanes,
    positive: npt.NDArray[np.int64],
    logarithm: Lanes,
    growth: Lanes,
) -> None:
    N, b = rows.shape[0], rows.shape[1]
    W = _LANES
    # Blocks are [P, X, C] with the lane last; nodes of one level lie one after the other along the first axis.
    here = np.empty((3, b, b, W))
    there = np.empty((3, b, b, W))
    panel = np.empty((b, 3 * b // 2 + 1, W))
    count = np.empty((2, b, W))
    logs = np.empty((2, b, W))
    large = np.empty((2, b, W))
    for first in range(0, N, W):
        for w in range(W):
            k = min(first + w, N - 1)
            for i in range(b):
                for j in range(b):
                    here[0, i, j, w] = rows[k, i, j]
                    here[1, i, j, w] = cross[k, i, j]
                    here[2, i, j, w] = columns[k, i, j]
            count[0, 0, w] = 0.0
            logs[0, 0, w] = 0.0
            large[0, 0, w] = 0.0
        h, nodes = b, 1
        while h > 1:
            h //= 2
            for node in range(nodes):
                _split(here, there, panel, node, h, count, logs, large)
            nodes *= 2
            here, there = there, here
            count[0, :nodes] = count[1, :nodes]
            logs[0, :nodes] = logs[1, :nodes]
            large[0, :nodes] = large[1, :nodes]
        for j in range(b):
            for w in range(min(W, N - first)):
                pivot = here[0, j, 0, w]
                positive[first + w, j] = int(count[0, j, w] + (1.0 if pivot > 0.0 else 0.0))
                logarithm[first + w, j] = logs[0, j, w] + math.log(abs(pivot))
                growth[first + w, j] = max(large[0, j, w], abs(pivot))


@_compile
def _split(here: Lanes, there: Lanes, panel: Lanes, node: int, h: int, count: Lanes, logs: Lanes, large: Lanes) -> None:
    # A node of size 2h lies in rows 2h·node … of each block; its children take h rows each. Child 0 eliminates the
    # rows of the second half, child 1 the columns of the first; `panel` is [pivot block | to rows | to columns].
    W = here.shape[3]
    top, middle = 2 * h * node, 2 * h * node + h
    for child in range(2):
        kept = top if child == 0 else middle
        side = 0 if child == 0 else h
        for i in range(h):
            for j in range(h):
                for w in range(W):
                    if child == 0:
                        panel[i, j, w] = here[0, middle + i, h + j, w]
                        panel[i, h + j, w] = here[0, middle + i, j, w]
                        panel[i, 2 * h + j, w] = here[1, middle + i, j, w]
                    else:
                        panel[i, j, w] = here[2, top + i, j, w]
                        panel[i, h + j, w] = here[1, middle + j, i, w]
                        panel[i, 2 * h + j, w] = here[2, top + i, h + j, w]
                    for block in range(3):
                        there[block, kept + i, j, w] = here[block, kept + i, side + j, w]
        into = 2 * node + child
        for w in range(W):
            count[1, into, w] = count[0, node, w]
            logs[1, into, w] = logs[0, node, w]
            large[1, into, w] = large[0, node, w]
        for k in range(h):
            _pivot(panel, there, kept, k, h, count[1, into], logs[1, into], large[1, into])


@_compile
def _pivot(panel: Lanes, there: Lanes, kept: int, k: int, h: int, count: Lanes, logs: Lanes, large: Lanes) -> None:
    W = panel.shape[2]
    scaled = np.empty(W)
    inverse = np.empty(W)
    for w in range(W):
        pivot = panel[k, k, w]
        inverse[w] = 1.0 / pivot
        count[w] += 1.0 if pivot > 0.0 else 0.0
        logs[w] += math.log(abs(pivot))
        large[w] = max(large[w], abs(pivot))
    for j in range(k + 1, 3 * h):
        for w in range(W):
            large[w] = max(large[w], panel[k, j, w] * panel[k, j, w] * abs(inverse[w]))
    for i in range(k + 1, h):
        for w in range(W):
            scaled[w] = panel[k, i, w] * inverse[w]
        for j in range(i, 3 * h):
            for w in range(W):
                panel[i, j, w] -= scaled[w] * panel[k, j, w]
    for i in range(h):
        for w in range(W):
            scaled[w] = panel[k, h + i, w] * inverse[w]
        for j in range(h):
            for w in range(W):
                there[0, kept + i, j, w] -= scaled[w] * panel[k, h + j, w]
                there[1, kept + i, j, w] -= scaled[w] * panel[k, 2 * h + j, w]
        for w in range(W):
            scaled[w] = panel[k, 2 * h + i, w] * inverse[w]
        for j in range(h):
            for w in range(W):
                there[2, kept + i, j, w] -= scaled[w] * panel[k, 2 * h + j, w]
