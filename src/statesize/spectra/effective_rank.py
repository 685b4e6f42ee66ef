"""The effective rank of Roy and Vetterli: the exponential of the entropy of normalised singular values."""

from __future__ import annotations

import torch
from torch import Tensor


def effective_rank(values: Tensor) -> Tensor:
    """exp(−Σ p ln p), p = σ/Σσ, (...), of σ ≥ 0, (..., r); 0 where every value is 0; differentiable."""
    # Roy and Vetterli, "The effective rank", EUSIPCO 2007.
    scale = largest(values)
    alive = scale > 0
    scaled = values / torch.where(alive, scale, torch.ones_like(scale))[..., None]
    total = scaled.sum(-1, keepdim=True)
    p = scaled / torch.where(alive[..., None], total, torch.ones_like(total))
    logarithm = torch.where(p > 0, p, torch.ones_like(p)).log()
    entropy = -(p * logarithm).sum(-1)
    return torch.where(alive, entropy.exp(), torch.zeros_like(entropy))


def largest(values: Tensor) -> Tensor:
    """σ_1 of (..., r), 0 where there are no values at all."""
    return values.amax(-1) if values.shape[-1] else values.new_zeros(values.shape[:-1])
