"""Known singular values, their effective rank, and how far both can be from the exact ones."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

from statesize.spectra.engine import Counts, HankelBlocks
from statesize.spectra.factorisation import frobenius_norm

_special = cast("Any", torch.special)
# The error of one factorisation or product, in units of eps and of Frobenius norms. Worst cases grow with the
# dimension; what is met in practice does not (Higham, Accuracy and Stability of Numerical Algorithms, 3.1 and 9.4).
ROUND_OFF = 8
UNDERFLOW = 1e-150
"""What an engine that squares its numbers can lose of a singular value: squares below 1e-308 are not kept."""


def denormal_error(size: Tensor) -> Tensor:
    """What rounding a size loses beside eps times it: the smallest normal number of its dtype, or 0 of an exact 0."""
    return torch.full_like(size, torch.finfo(size.dtype).tiny).where(size > 0, 0)


def entropy_bound(values: Tensor, error: Tensor, ess: Tensor) -> Tensor:
    """A bound (...) of |ESS − computed ESS| where every σ̂ (..., r) is off by at most `error` (...)."""
    # With p = σ/Σσ and D = ½ ‖p − p̂‖₁, |H(p) − H(p̂)| ≤ D ln(r − 1) + h(D), h the binary entropy, for D ≤ 1 − 1/r
    # (Audenaert, "A sharp continuity estimate for the von Neumann entropy", 2007); beyond it, at most ln r.
    r = values.shape[-1]
    if r == 0:
        return torch.zeros_like(error)
    total, shift, most = values.sum(-1), r * error, math.log(r)
    # Σ|p − p̂| ≤ (Σ|σ − σ̂| + |S − Ŝ|) / S and S ≥ Ŝ − rδ.
    distance = torch.where(total > shift, shift / (total - shift), torch.ones_like(total)).clamp(0, 1)
    change = distance * math.log(max(r - 1, 1)) + _special.entr(distance) + _special.entr(1 - distance)
    change = torch.where(distance <= 1 - 1 / r, change.clamp(max=most), most)
    bound = (ess.detach() * torch.expm1(change)).clamp(max=float(r))
    # ESS is stated as 0 where σ̂_1 ≤ δ: nothing is known there of a block that is not 0.
    top = values.amax(-1)
    return torch.where(top > error, bound, torch.where(top > 0, float(r), 0.0))


def effective_rank(values: Tensor) -> Tensor:
    """exp(−Σ p ln p), p = σ/Σσ, (...), of σ ≥ 0, (..., r); 0 where every value is 0; differentiable."""
    # Roy and Vetterli, "The effective rank", EUSIPCO 2007.
    scale = largest(values)
    alive = scale > 0
    scaled = values / torch.where(alive, scale, 1)[..., None]
    p = scaled / torch.where(alive, scaled.sum(-1), 1)[..., None]
    entropy = -(p * torch.where(p > 0, p, 1).log()).sum(-1)
    return torch.where(alive, entropy.exp(), 0)


def largest(values: Tensor) -> Tensor:
    """σ_1 of (..., r), 0 where there are no values at all."""
    return values.amax(-1) if values.shape[-1] else values.new_zeros(values.shape[:-1])


@dataclass(frozen=True, eq=False)
class Spectrum(HankelBlocks):
    """Hankel singular values at some positions."""

    values: Tensor  # σ̂, (..., P, r), descending, zero-padded
    error_bound: Tensor  # δ ≥ |σ̂ − σ|, (..., P), round-off included
    limit: Tensor  # min(rows, columns) of each block, (P,)

    def norms(self) -> Tensor:
        """‖H_i‖_F, (..., P)."""
        return frobenius_norm(self.values[..., None])

    def counts(self, thresholds: Tensor) -> Counts:
        """#{σ > τ} for absolute thresholds (K,)."""
        return self._count(thresholds.expand(*self.error_bound.shape, -1), self.error_bound[..., None])

    def relative_counts(self, ratios: Tensor) -> Counts:
        """#{σ > ρ σ_1} for ratios (R,); the threshold is itself uncertain by ρ δ."""
        return self._count(ratios * largest(self.values)[..., None], self.error_bound[..., None] * (1 + ratios))

    def entropies(self) -> tuple[Tensor, Tensor]:
        """Entropy-ESS and a bound on its error, both (..., P)."""
        alive = largest(self.values) > self.error_bound
        # The entropy-ESS of one value is 1, which logarithms miss by a little.
        entropy = torch.where(alive, effective_rank(self.values).clamp(min=1), 0.0)
        return entropy, entropy_bound(self.values.detach(), self.error_bound, entropy)

    def singular_values(self) -> Tensor:
        """σ̂, (..., P, r), descending, zero-padded."""
        return self.values

    def _count(self, threshold: Tensor, off: Tensor) -> Counts:
        """Those above thresholds (..., P, K), with what the errors allow of which σ̂ and threshold are off together."""
        shifted = (threshold, threshold + off, threshold - off)
        count, lower, upper = ((self.values[..., None, :] > part[..., None]).sum(-1) for part in shifted)
        most = self.limit[:, None].expand_as(upper)
        # A block can have more than r singular values, each within δ of the 0 that stands for it.
        return Counts(count, lower, torch.where(threshold < off, most, torch.minimum(upper, most)))
