"""Certificates: how far a computed spectrum, and the entropy made of it, can be from the exact one."""

from __future__ import annotations

import math

import torch
from torch import Tensor

# Below this, parts of a sum of powers of four may be lost.
_VANISHING = 1e-280
UNDERFLOW = 1e-150
"""What an engine that squares its numbers can lose of a singular value: squares below 1e-308 are not kept."""


def denormal_error(size: Tensor) -> Tensor:
    """What rounding a size loses beside eps times it: the smallest normal number of its dtype, or 0 of an exact 0."""
    return torch.full_like(size, torch.finfo(size.dtype).tiny).where(size > 0, 0)


def carried_error(gain: Tensor, steps: Tensor) -> Tensor:
    """e_0 = step_0, e_k = gain_k e_{k−1} + step_k, (..., K): what steps lose, carried on by gains ≥ 0."""
    carried = [steps[..., 0]]
    for k in range(1, steps.shape[-1]):
        carried.append(gain[..., k] * carried[-1] + steps[..., k])
    return torch.stack(carried, -1)


def fourth_root(fourth: Tensor) -> Tensor:
    """∜ of sums of fourth powers (...), rounded up where numbers are so small that powers may have vanished."""
    return torch.where(fourth > _VANISHING, fourth.sqrt().sqrt(), _VANISHING**0.25)


def entropy_bound(values: Tensor, error: Tensor, ess: Tensor) -> Tensor:
    """A bound (...) of |ESS − computed ESS| where every σ̂ (..., r) is off by at most `error` (...); 0 where σ_1 ≤ δ."""
    # With p = σ/Σσ and D = ½ ‖p − p̂‖₁, |H(p) − H(p̂)| ≤ D ln(r − 1) + h(D), h the binary entropy, for D ≤ 1 − 1/r
    # (Audenaert, "A sharp continuity estimate for the von Neumann entropy", 2007); beyond it, at most ln r.
    r = values.shape[-1]
    if r == 0:
        return torch.zeros_like(error)
    total = values.sum(-1)
    shift = r * error
    # Σ|p − p̂| ≤ (Σ|σ − σ̂| + |S − Ŝ|) / S and S ≥ Ŝ − rδ.
    distance = torch.where(total > shift, shift / (total - shift), torch.ones_like(total)).clamp(0, 1)
    ln_r = torch.full_like(distance, math.log(r))
    change = distance * math.log(max(r - 1, 1)) + _entr(distance) + _entr(1 - distance)
    change = torch.where(distance <= 1 - 1 / r, torch.minimum(change, ln_r), ln_r)
    bound = (ess.detach() * torch.expm1(change)).clamp(max=float(r))
    return torch.where(values.amax(-1) <= error, torch.zeros_like(bound), bound)


def _entr(p: Tensor) -> Tensor:
    return -torch.xlogy(p, p)


def count_bounds(values: Tensor, error: Tensor, threshold: Tensor, limit: Tensor) -> tuple[Tensor, Tensor]:
    """The least and largest number of σ above thresholds that |σ̂ − σ| ≤ δ allows, each (..., P, K)."""
    # values σ̂ (..., P, r); error δ (..., P, K), that of a computed threshold included; limit (P,): min(rows, columns).
    sigma = values[..., None, :]
    lower = (sigma > (threshold + error)[..., None]).sum(-1)
    upper = (sigma > (threshold - error)[..., None]).sum(-1)
    most = limit[:, None].expand_as(upper)
    # A block can have more than r singular values, each within δ of the 0 that stands for it.
    return lower, torch.where(threshold < error, most, torch.minimum(upper, most))
