"""Factorisations that engines use: of matrices, and of the Gramians of a recurrence between borders."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor

from statesize.check import all_finite

_linalg = cast("Any", torch.linalg)
# Norms between which no square that matters is lost, in float32 too.
_SQUARES = (1e-15, 1e15)


def singular_values(matrix: Tensor) -> Tensor:
    """Singular values of (..., m, n), descending, (..., min(m, n)); NaN where entries are not finite."""
    if not all_finite(matrix):
        finite = matrix.isfinite().all(-1, keepdim=True).all(-2, keepdim=True)
        return singular_values(matrix.where(finite, 0)).where(finite.squeeze(-1), torch.nan)
    # LAPACK takes up to eight times as long for a wide matrix as for its transpose.
    return _linalg.svdvals(matrix.mT if matrix.shape[-1] > matrix.shape[-2] else matrix)


def triangular_factor(matrix: Tensor) -> Tensor:
    """R of the QR factorisation of (..., m, n), (..., min(m, n), n)."""
    return _linalg.qr(matrix, mode="r").R


def frobenius_norm(matrix: Tensor) -> Tensor:
    """‖·‖_F of (..., m, n), scaled where a square would overflow or underflow."""
    norm: Tensor = _linalg.vector_norm(matrix, dim=(-2, -1))
    risky = ~((norm > _SQUARES[0]) & (norm < _SQUARES[1]))
    if not bool(risky.any()):
        return norm
    size = matrix[risky].abs()
    scale = size.amax((-2, -1), keepdim=True) if size.numel() else size.new_zeros((*size.shape[:-2], 1, 1))
    scale = torch.where(scale > 0, scale, torch.ones_like(scale))
    scaled = (size / scale).square().sum((-2, -1)).sqrt() * scale.squeeze((-2, -1))
    return norm.masked_scatter(risky, scaled)


def border_factors(observability: Tensor, reachability: Tensor, transition: Tensor) -> tuple[Tensor, Tensor]:
    """L at the borders 0 … c − 1 and S at 1 … c, (..., c, n, n), of c chunks."""
    # Chunk k has the rows C_t Φ(t, β_k), the columns Φ(β_{k+1}, s) B_s and the transition Φ(β_{k+1}, β_k):
    # (..., c, b, n), (..., c, n, b) and (..., c, n, n).
    phi, columns, rows = (part.unbind(-3) for part in (transition, reachability, observability))
    L, S = [torch.zeros_like(phi[0])], [torch.zeros_like(phi[0])]
    for k in range(len(phi) - 1):
        L.append(after_chunk(L[-1], phi[k], columns[k]))
    for k in range(len(phi) - 1, 0, -1):
        S.append(before_chunk(S[-1], phi[k], rows[k]))
    return torch.stack(L, -3), torch.stack(S[::-1], -3)


def after_chunk(L: Tensor, transition: Tensor, columns: Tensor) -> Tensor:
    """L after a chunk from the one before it, (..., n, n)."""
    return triangular_factor(torch.cat([(transition @ L).mH, columns.mH], -2)).mH


def before_chunk(S: Tensor, transition: Tensor, rows: Tensor) -> Tensor:
    """S before a chunk from the one after it, (..., n, n)."""
    return triangular_factor(torch.cat([rows, S @ transition], -2))
