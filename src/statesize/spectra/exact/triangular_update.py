"""Square-root factors of diagonal recurrences, carried from position to position by plane rotations."""

from __future__ import annotations

import math
from typing import Any, cast

import numba
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Numbers = npt.NDArray[np.float64]


_compile = cast("Any", numba).njit(cache=True, nogil=True, fastmath={"contract"}, error_model="numpy")


def carried_factors(decay: Tensor, rows: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
    """R_t = R of qr([R_{t−1} Diag(decay_t); row_t]) at the wanted steps, (N, K, n, n), and ‖R_t‖_F at all, (N, L)."""
    # decay (N, L, n) or (N, L, 1), rows (N, L, n), wanted (L,) bool; R = 0 before the first step; O(n²) a step.
    # A scaled triangle is a triangle, so n plane rotations take in a row (Golub and Van Loan, Matrix Computations,
    # section 6.5.3). Nothing is squared that could overflow.
    N, length, n = rows.shape
    slot = torch.where(wanted, wanted.cumsum(0) - 1, -1)
    factors = torch.zeros(N, int(wanted.sum()), n, n, dtype=torch.float64)
    norms = torch.zeros(N, length, dtype=torch.float64)
    arrays = [part.detach().resolve_neg().cpu().contiguous().numpy() for part in (decay, rows, slot)]
    _carry(*arrays, factors.numpy(), norms.numpy())
    return factors.to(rows.device), norms.to(rows.device)


@_compile
def _carry(decay: Numbers, rows: Numbers, slot: npt.NDArray[np.int64], factors: Numbers, norms: Numbers) -> None:
    N, length, n = rows.shape
    R = np.empty((n, n))
    row = np.empty(n)
    for entry in range(N):
        R[:] = 0.0
        for t in range(length):
            largest = 0.0
            for k in range(n):
                for j in range(k, n):
                    R[k, j] *= decay[entry, t, j if decay.shape[2] > 1 else 0]
                row[k] = rows[entry, t, k]
            for k in range(n):
                _rotate(R[k], row, k, n)
            for k in range(n):
                for j in range(k, n):
                    largest = max(largest, abs(R[k, j]))
            if largest > 0.0:
                total = 0.0
                for k in range(n):
                    for j in range(k, n):
                        total += (R[k, j] / largest) ** 2
                norms[entry, t] = largest * math.sqrt(total)
            if slot[t] >= 0:
                # Number by number: the check of shapes in an assignment of arrays takes seconds to compile.
                for k in range(n):
                    for j in range(n):
                        factors[entry, slot[t], k, j] = R[k, j]


@_compile
def _rotate(upper: Numbers, row: Numbers, k: int, n: int) -> None:
    if row[k] == 0.0:
        return
    radius = math.hypot(upper[k], row[k])
    cosine, sine = upper[k] / radius, row[k] / radius
    for j in range(k, n):
        above = upper[j]
        upper[j] = cosine * above + sine * row[j]
        row[j] = cosine * row[j] - sine * above
