"""Blocks whose singular values are all known, and the effective rank of singular values."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from statesize.spectra.bounds import count_bounds, entropy_bound
from statesize.spectra.engine import Counts, HankelBlocks
from statesize.spectra.factorisation import frobenius_norm


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


@dataclass(frozen=True, eq=False)
class Spectrum(HankelBlocks):
    """Hankel singular values at some positions.

    Attributes:
        values: σ̂, (..., P, r), descending, zero-padded.
        error_bound: δ ≥ |σ̂ − σ|, (..., P), round-off included.
        limit: min(rows, columns) of each block, (P,).
    """

    values: Tensor
    error_bound: Tensor
    limit: Tensor

    def norms(self) -> Tensor:
        """‖H_i‖_F, (..., P)."""
        return frobenius_norm(self.values[..., None])

    def counts(self, thresholds: Tensor) -> Counts:
        """#{σ > τ} for absolute thresholds (K,)."""
        return self._count(thresholds.expand(*self.error_bound.shape, -1), self.error_bound[..., None])

    def relative_counts(self, ratios: Tensor, accuracy: float = 0.0) -> Counts:
        """#{σ > ρ σ_1} for ratios (R,); the threshold is itself uncertain by ρ δ."""
        return self._count(ratios * largest(self.values)[..., None], self.error_bound[..., None] * (1 + ratios))

    def entropies(self, accuracy: float) -> tuple[Tensor, Tensor]:
        """Entropy-ESS and a bound on its error, both (..., P); more accurate than any requested accuracy."""
        del accuracy
        alive = largest(self.values) > self.error_bound
        entropy = torch.where(alive, effective_rank(self.values), 0.0)
        return entropy, entropy_bound(self.values.detach(), self.error_bound, entropy)

    def singular_values(self) -> Tensor:
        """σ̂, (..., P, r), descending, zero-padded."""
        return self.values

    def _count(self, threshold: Tensor, uncertainty: Tensor) -> Counts:
        count = (self.values[..., None, :] > threshold[..., None]).sum(-1)
        return Counts(count, *count_bounds(self.values, uncertainty.expand(threshold.shape), threshold, self.limit))
