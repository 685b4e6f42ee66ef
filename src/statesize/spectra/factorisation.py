"""The matrix factorisations that engines use, typed (`torch.linalg` carries no types)."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor

_linalg = cast("Any", torch.linalg)


def singular_values(matrix: Tensor) -> Tensor:
    """Singular values of (..., m, n), descending, (..., min(m, n))."""
    return _linalg.svdvals(matrix)


def triangular_factor(matrix: Tensor) -> Tensor:
    """R of the QR factorisation of (..., m, n), (..., min(m, n), n)."""
    return _linalg.qr(matrix, mode="r").R


def corner_energies(matrix: Tensor) -> Tensor:
    """‖T[j:, :j]‖_F² for j = 0 … b − 1 of real (..., b, b), as sums of squares without differences, (..., b)."""
    sums = matrix.square().flip(-2).cumsum_(-2).flip(-2).cumsum_(-1)
    return torch.nn.functional.pad(sums[..., 1:, :-1].diagonal(0, -2, -1), (1, 0))


def frobenius_norm(matrix: Tensor) -> Tensor:
    """‖·‖_F of (..., m, n), scaled so that no square overflows or underflows."""
    size = matrix.abs()
    scale = size.amax((-2, -1), keepdim=True) if matrix.numel() else size.new_zeros((*size.shape[:-2], 1, 1))
    scale = torch.where(scale > 0, scale, torch.ones_like(scale))
    return (size / scale).square().sum((-2, -1)).sqrt() * scale.squeeze((-2, -1))
