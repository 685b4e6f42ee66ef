"""Inertia and log-determinant of the blocks of chunks at all their positions at once (docs/engines.md, "Counts")."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from statesize.spectra.engine import has_compiled_kernels
from statesize.spectra.lanes.elimination import eliminate_chunks

SIZE_ERROR = 2.0
"""An elimination is exact for a matrix within this times eps times the size; 0.5 was the most that was seen."""


def eliminate(rows: Tensor, cross: Tensor, columns: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Positive pivots (N, b) int64, Σ ln |pivot| and size (N, b) of S_j = [[P[j:, j:], X[j:, :j]], [·, C[:j, :j]]]."""
    # P and C symmetric, all (N, b, b). The size is Σ (|pivot| + |row|²/|pivot|): the computed elimination, without
    # pivoting, is exact for some S_j + E with ‖E‖ ≤ SIZE_ERROR · eps · size.
    b = rows.shape[-1]
    padded = 1 << (b - 1).bit_length()
    whole = rows.new_zeros(rows.shape[0], 2 * padded, 2 * padded)
    # Rows added behind have a pivot below 0 in every S_j, of the size of the others.
    added = rows.diagonal(0, -2, -1).abs().amax(-1, keepdim=True)
    added = torch.where((added > 0) & torch.isfinite(added), added, 1.0)
    whole.diagonal(0, -2, -1).copy_(-added)
    whole[:, :b, :b], whole[:, :b, padded : padded + b] = rows, cross
    whole[:, padded : padded + b, padded : padded + b] = columns
    by_device = _by_kernels if has_compiled_kernels(whole.device) else eliminate_tensors
    positive, logarithm, size = by_device(whole)
    return positive[:, :b], (logarithm - (padded - b) * added.log())[:, :b], size[:, :b]


def _by_kernels(whole: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    N, b = whole.shape[0], whole.shape[1] // 2
    positive, logarithm, size = np.empty((N, b), np.int64), np.empty((N, b)), np.empty((N, b))
    eliminate_chunks(whole.numpy(), positive, logarithm, size)
    return torch.from_numpy(positive), torch.from_numpy(logarithm), torch.from_numpy(size)


def eliminate_tensors(whole: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """As the compiled `eliminate_chunks`, by operations on all chunks at once, for tensors on any device."""
    N, b = whole.shape[0], whole.shape[1] // 2
    # The nodes of a level beside each other, (N, nodes, h, h) each; what was eliminated for them, (N, nodes).
    P, X, C = whole[:, None, :b, :b], whole[:, None, :b, b:], whole[:, None, b:, b:]
    positive, logarithm, size = (whole.new_zeros(N, 1) for _ in range(3))
    for h in (b >> level for level in range(1, b.bit_length())):
        low, high = slice(0, h), slice(h, None)
        # The first half eliminates the rows of the second, the second the columns of the first.
        across = X[..., high, low]
        panel = _halves(
            torch.cat([P[..., high, high], P[..., high, low], across], -1),
            torch.cat([C[..., low, low], across.mT, C[..., low, high]], -1),
        )
        P, X, C = (_halves(part[..., low, low], part[..., high, high]) for part in (P, X, C))
        positive, logarithm, size = (part.repeat_interleave(2, 1) for part in (positive, logarithm, size))
        for k in range(h):
            pivot, row = panel[..., k, k, None], panel[..., k, k + 1 :]
            scaled = row / pivot
            panel[..., k + 1 :, k + 1 :] -= scaled[..., : h - k - 1, None] * row[..., None, :]
            size += pivot.abs().squeeze(-1) + (row * scaled).sum(-1).abs()
        pivots = panel.diagonal(0, -2, -1)
        positive, logarithm = positive + (pivots > 0).sum(-1), logarithm + _logarithms(pivots).sum(-1)
        to_rows, to_columns = panel[..., h : 2 * h], panel[..., 2 * h :]
        by_rows, by_columns = to_rows.mT / pivots[..., None, :], to_columns.mT / pivots[..., None, :]
        P, X, C = P - by_rows @ to_rows, X - by_rows @ to_columns, C - by_columns @ to_columns
    pivot = P.flatten(1)
    return (positive + (pivot > 0)).long(), logarithm + _logarithms(pivot), size + pivot.abs()


def _halves(first: Tensor, second: Tensor) -> Tensor:
    """What two children of each node keep, (N, 2 nodes, ...)."""
    return torch.stack([first, second], 2).flatten(1, 2)


def _logarithms(pivots: Tensor) -> Tensor:
    """Of |pivot|, NaN of infinite pivots."""
    return pivots.abs().log() + (pivots - pivots)
