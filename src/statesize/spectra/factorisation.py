"""The matrix factorisations that engines use, typed (`torch.linalg` carries no types)."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor

from statesize.parallel.threads import end_if_unwanted

_linalg = cast("Any", torch.linalg)
# Norms between which no square that matters is lost, in float32 too.
_SQUARES = (1e-15, 1e15)


def singular_values(matrix: Tensor) -> Tensor:
    """Singular values of (..., m, n), descending, (..., min(m, n))."""
    end_if_unwanted()
    return _linalg.svdvals(matrix)


def triangular_factor(matrix: Tensor) -> Tensor:
    """R of the QR factorisation of (..., m, n), (..., min(m, n), n)."""
    end_if_unwanted()
    return _linalg.qr(matrix, mode="r").R


def corner_energies(matrix: Tensor) -> Tensor:
    """‖T[r j:, :j]‖_F² for j = 0 … b − 1 of real (..., r b, b), as sums of squares without differences, (..., b)."""
    square = matrix.square()
    if matrix.shape[-2] != matrix.shape[-1]:
        square = square.reshape(*matrix.shape[:-2], matrix.shape[-1], -1, matrix.shape[-1]).sum(-2)
    below = square.cumsum_(-1).tril_(-1).sum(-2)
    return torch.nn.functional.pad(below[..., :-1], (1, 0))


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
