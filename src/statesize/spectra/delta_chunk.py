"""What a chunk of the delta rule does, without stepping through its states."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor

from statesize.operators.transition import DeltaTransition

_linalg = cast("Any", torch.linalg)


def delta_within(transition: DeltaTransition, B: Tensor, C: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """C_t Φ(t, i0), T inside, Φ(i1, s) B_s and Φ of chunks of x_t = (I − β_t k_t k_tᵀ) D_t x_{t−1} + B_t u_t.

    Step t erases w_t = β_t k_tᵀ D_t x_{t−1} under k_t, so x_t = Γ(t, i0) x_{i0} + Σ_{s ≤ t} Γ(t, s) (B_s u_s − k_s w_s)
    with Γ(t, s) = D_t … D_{s+1}. That is one triangular system for all w of a chunk (the WY form of Bischof and Van
    Loan, 1987; Yang et al., 2024, for linear transformers), and products of the size of the chunk for the rest.

    Args:
        transition: Of chunks, key (..., b, n), beta (..., b, 1), decay (..., b, n) or (..., b, 1).
        B: (..., b, n).
        C: (..., b, n).

    Returns:
        (..., b, n), (..., b, b), (..., n, b) and (..., n, n).
    """
    key, beta, decay = transition.key, transition.beta, transition.decay
    b, n = B.shape[-2:]
    key = key.expand(B.shape)
    pairs = _scalar_pairs if decay.shape[-1] == 1 else _diagonal_pairs
    products, arriving_decay = pairs(torch.cat([key, C], -2), torch.cat([key, B], -2), decay)
    from_start = decay.cumprod(-2)
    (key_key, key_B), (C_key, C_B) = (
        (part[..., :b], part[..., b:]) for part in (products[..., :b, :], products[..., b:, :])
    )
    eye = torch.eye(b, dtype=B.dtype, device=B.device)
    erased: Tensor = _linalg.solve_triangular(
        eye + beta * key_key.tril(-1),
        beta * torch.cat([from_start * key, key_B.tril(-1)], -1),
        upper=False,
        unitriangular=True,
    )
    shown = C_key.tril() @ erased
    left_over = (arriving_decay * key).mT @ erased
    observed = from_start * C - shown[..., :n]
    inside = (C_B - shown[..., n:]).tril(-1)
    arriving = (arriving_decay * B).mT - left_over[..., n:]
    whole = torch.diag_embed(from_start[..., -1, :].expand(*B.shape[:-2], n))
    return observed, inside, arriving, whole - left_over[..., :n]


def _scalar_pairs(left: Tensor, right: Tensor, decay: Tensor) -> tuple[Tensor, Tensor]:
    """left_t Γ(t, s) right_sᵀ for s ≤ t, (..., 2b, 2b), with two rows a step, and Γ(b − 1, s), (..., b, 1)."""
    b = decay.shape[-2]
    ratio = decay.new_zeros(*decay.shape[:-2], b, b)
    for t in range(b):
        if t:
            ratio[..., t, :t] = ratio[..., t - 1, :t] * decay[..., t, :]
        ratio[..., t, t] = 1
    return (left @ right.mT) * ratio.repeat(*(1,) * (ratio.ndim - 2), 2, 2), ratio[..., -1, :, None]


def _diagonal_pairs(left: Tensor, right: Tensor, decay: Tensor) -> tuple[Tensor, Tensor]:
    """The same for decays (..., b, n), and Γ(b − 1, s), (..., b, n)."""
    b, n = decay.shape[-2:]
    shape = left.shape[:-2]
    decays = torch.ones(*shape, b, n, dtype=left.dtype, device=left.device)
    products = left.new_zeros(*shape, 2, b, 2, b)
    left, right = left.view(*shape, 2, b, n), right.view(*shape, 2, b, n)
    for t in range(b):
        decays[..., :t, :] *= decay[..., t, None, :]
        decayed = right[..., : t + 1, :] * decays[..., None, : t + 1, :]
        found = left[..., t, :] @ decayed.flatten(-3, -2).mT
        products[..., t, :, : t + 1] = found.view(*shape, 2, 2, t + 1)
    return products.view(*shape, 2 * b, 2 * b), decays
