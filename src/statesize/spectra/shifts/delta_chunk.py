"""What a chunk of the delta rule does, without stepping through its states.

For x_t = (I − B_t k_tᵀ) D_t x_{t−1} + B_t u_t, y_t = C_t x_t, with D(s, t) the decays of the steps s + 1 … t and
r_t = k_tᵀ D_t x_{t−1} what step t erases, the state is

    x_t = D(−1, t) x_{−1} − Σ_{s≤t} D(s, t) B_s r_s,
    so   r_t + Σ_{s<t} k_tᵀ D(s, t) B_s r_s = k_tᵀ D(−1, t) x_{−1}:

one unit triangular system a chunk (the WY form of Bischof and Van Loan, 1987; Yang et al., "Parallelizing Linear
Transformers with the Delta Rule", 2024). An input at s counts as r_s = −1: its reachability is D(s, b − 1) B_s times
the inverse of that triangle.
"""

from __future__ import annotations

from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

_linalg = cast("Any", torch.linalg)
# Positions over which products of decays are written out one by one.
_LEAF = 8


class Chunks(NamedTuple):
    """Chunks of b positions from i0 to i1, differentiable in what they are made of."""

    observability: Tensor  # C_t Φ(t, i0), what the outputs read of the state before the chunk, (..., b, n)
    inside: Tensor  # T inside the chunk, strictly lower, (..., b, b)
    reachability: Tensor  # Φ(i1, s) B_s, what the inputs leave in the state after the chunk, (..., n, b)
    transition: Tensor  # Φ(i1, i0), (..., n, n)


def delta_chunks(key: Tensor, decay: Tensor, B: Tensor, C: Tensor) -> Chunks:
    """Chunks of a delta rule from k, D, B and C, (..., b, n) each, D also (..., b, 1), b as `delta_width` gives it."""
    erased, shown = _through(torch.stack([key, C], -3), decay[..., None, :, :], B[..., None, :, :]).unbind(-3)
    eye = torch.eye(B.shape[-2], dtype=B.dtype, device=B.device).expand_as(erased)
    prefix = decay.cumprod(-2)
    right = torch.cat([key * prefix, eye], -1)
    solved: Tensor = _linalg.solve_triangular(erased, right, upper=False, unitriangular=True)
    erasing, inverse = solved[..., : B.shape[-1]], solved[..., B.shape[-1] :]
    left = (later_decay(decay) * B).mT
    transition = torch.diag_embed(prefix[..., -1, :].expand(*B.shape[:-2], B.shape[-1])) - left @ erasing
    return Chunks(C * prefix - shown @ erasing, (shown @ inverse).tril(-1), left @ inverse, transition)


def delta_width(width: int) -> int:
    """The least width of a chunk, at least the given one, that can be halved down to a few positions."""
    levels, leaf = _halvings(width)
    return leaf * 2**levels


def _through(rows: Tensor, decay: Tensor, columns: Tensor) -> Tensor:
    """rows_tᵀ D(s, t) columns_s for s ≤ t, else 0, (..., b, b), b a leaf times a power of 2."""
    # From halves to the whole: D(s, t) = D(s, m) D(m, t) across the middle m. Quotients of prefixes could be 0 / 0.
    levels, size = _halvings(rows.shape[-2])
    product = _leaves(_blocks(rows, size), _blocks(decay, size), _blocks(columns, size))
    for _ in range(levels):
        late = _blocks(rows, size)[..., 1::2, :, :] * _blocks(decay, size)[..., 1::2, :, :].cumprod(-2)
        early = _blocks(columns, size)[..., 0::2, :, :] * later_decay(_blocks(decay, size)[..., 0::2, :, :])
        across = late @ early.mT
        top = torch.cat([product[..., 0::2, :, :], torch.zeros_like(across)], -1)
        product = torch.cat([top, torch.cat([across, product[..., 1::2, :, :]], -1)], -2)
        size *= 2
    return product.squeeze(-3)


def _blocks(part: Tensor, size: int) -> Tensor:
    return part.reshape(*part.shape[:-2], part.shape[-2] // size, size, part.shape[-1])


def _leaves(rows: Tensor, decay: Tensor, columns: Tensor) -> Tensor:
    step = torch.arange(decay.shape[-2], device=decay.device)
    factors = torch.where((step[:, None] > step)[..., None], decay[..., :, None, :], 1)
    between = factors.cumprod(-3) * (step[:, None] >= step)[..., None]
    if decay.shape[-1] == 1:
        return (rows @ columns.mT) * between.squeeze(-1)
    return (rows[..., :, None, :] * (between * columns[..., None, :, :])).sum(-1)


def _halvings(width: int) -> tuple[int, int]:
    """How often a chunk is halved until at most 8 positions are left, and how many that are, rounded up."""
    levels = (-(-width // _LEAF) - 1).bit_length()
    return levels, -(-width // 2**levels)


def later_decay(decay: Tensor) -> Tensor:
    """Products of all later factors, (..., b, n)."""
    return torch.cat([decay[..., 1:, :], torch.ones_like(decay[..., :1, :])], -2).flip(-2).cumprod(-2).flip(-2)
