"""Inertia and log-determinant of the blocks of chunks at all their positions at once (docs/engines.md, "Counts")."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from statesize.spectra.lanes.elimination import eliminate_chunks

SIZE_ERROR = 2.0
"""An elimination is exact for a matrix within this times eps times the size; 0.5 was the most that was seen."""


def eliminate(rows: Tensor, cross: Tensor, columns: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Positive pivots (N, b) int64, Σ ln |pivot| and size (N, b) of S_j = [[P[j:, j:], X[j:, :j]], [·, C[:j, :j]]]."""
    # P and C symmetric, all (N, b, b). The size is Σ (|pivot| + |row|²/|pivot|): the computed elimination, without
    # pivoting, is exact for some S_j + E with ‖E‖ ≤ SIZE_ERROR · eps · size.
    device, (N, b) = rows.device, rows.shape[:2]
    padded = 1 << (b - 1).bit_length()
    whole = torch.zeros(N, 2 * padded, 2 * padded, dtype=torch.float64)
    # Rows added behind have a pivot below 0 in every S_j, of the size of the others.
    added = rows.diagonal(0, -2, -1).abs().amax(-1, keepdim=True).cpu()
    added = torch.where((added > 0) & torch.isfinite(added), added, 1.0)
    whole.diagonal(0, -2, -1).copy_(-added)
    whole[:, :b, :b], whole[:, :b, padded : padded + b] = rows, cross
    whole[:, padded : padded + b, padded : padded + b] = columns
    positive, logarithm, size = np.empty((N, padded), np.int64), np.empty((N, padded)), np.empty((N, padded))
    eliminate_chunks(whole.numpy(), positive, logarithm, size)
    parts = (
        torch.from_numpy(positive),
        torch.from_numpy(logarithm) - (padded - b) * added.log(),
        torch.from_numpy(size),
    )
    results = (part[:, :b].to(device) for part in parts)
    return next(results), next(results), next(results)
