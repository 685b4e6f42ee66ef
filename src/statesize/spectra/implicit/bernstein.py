"""Spectral sums of complete Bernstein functions of A = HᵀH, which subspaces bound from both sides.

f(x) = ∫ x / (x + t) dm(t) with m ≥ 0 is operator monotone and operator concave, f(0) = 0. So for any orthonormal V

    f(A V (VᵀAV)⁻¹ VᵀA) ≤ f(A)    and    zᵀ f(A) z ≤ zᵀ V f(VᵀAV) Vᵀ z for z in the span of V

(Löwner 1934; Hansen and Pedersen 1982). √x, hence Σσ, is one with the density 1 / (π √t). The entropy of the σ changes,
to first order, with the sum of σ (c − ln σ) = B(σ) − D(σ), whose density (c − ½ ln t) / (π √t) changes its sign once,
at t = e^{2c}; B and D are the parts below and above. With y = σ e^{−c} and the inverse tangent integral Ti₂,

    B = e^c (y max(−ln y, 0) + E(y)),    D = e^c (y max(ln y, 0) + E(y)),    E(y) = (2/π) y Ti₂(min(y, 1/y)).
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

# Of the integral of arctan(u)/u from 0 to 1: the integrand has its nearest poles at ±i, so that 20 nodes give all
# digits.
_NODES, _WEIGHTS = (torch.from_numpy(part) for part in np.polynomial.legendre.leggauss(20))


def entropy_parts(sigma: Tensor, c: float) -> tuple[Tensor, Tensor]:
    """B and D of σ ≥ 0, (...) each: σ (c − ln σ) = B − D."""
    y = sigma * math.exp(-c)
    ratio = torch.minimum(y, 1 / y.clamp(min=1))
    nodes, weights = (_NODES.to(y) + 1) / 2, _WEIGHTS.to(y) / 2
    both = 2 / math.pi * y * ((torch.atan(ratio[..., None] * nodes) / nodes) @ weights)
    product = torch.xlogy(y, y)
    return math.exp(c) * ((-product).clamp(min=0) + both), math.exp(c) * (product.clamp(min=0) + both)
