"""Hankel singular values of a recurrence at borders, with gradients that never divide by a gap between them.

With P_{k+1} = Φ_k P_k Φ_kᵀ + R_k R_kᵀ and Q_k = Φ_kᵀ Q_{k+1} Φ_k + O_kᵀ O_k (R reachability, O observability),
P = L Lᵀ, Q = Sᵀ S and S L = U Σ Vᵀ, the derivative of a singular value is

    dσ = (uᵀ S dP Sᵀ u + vᵀ Lᵀ dQ L v) / 2σ,

which the adjoints of the two recursions carry to all chunks. Unlike those of singular vectors it needs no
1/(σ_i² − σ_j²), and the values themselves come from square roots, not from the Gramians (docs/gradients.md).
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from statesize.check import require_finite
from statesize.spectra.border_maps import BorderMaps
from statesize.spectra.factorisation import frobenius_norm
from statesize.spectra.gramians import border_factors

RELATIVE_FLOOR = 1e-10
"""Singular values below this share of σ_1 count as 0: their directions are too little known for a gradient."""


def border_singular_values(maps: BorderMaps, wanted: Tensor) -> Tensor:
    """σ(S_k L_k) at borders k (P,) out of 1 … c − 1, (..., P, n), descending; 0 up to 1e-10 σ_1 and the round-off."""
    return cast("Any", _BorderSingularValues).apply(*maps, wanted)


class _BorderSingularValues(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, observability: Tensor, reachability: Tensor, transition: Tensor, wanted: Tensor) -> Tensor:
        L_factors, S_factors = border_factors(observability, reachability, transition)
        # L_factors[k] belongs to border k, S_factors[k] to border k + 1.
        L, S = L_factors.index_select(-3, wanted), S_factors.index_select(-3, wanted - 1)
        product = S @ L
        require_finite("T", product)
        U, sigma, Vh = cast("Any", torch.linalg).svd(product)
        noise = 8 * sigma.shape[-1] * torch.finfo(sigma.dtype).eps * frobenius_norm(S) * frobenius_norm(L)
        floor = torch.maximum(RELATIVE_FLOOR * sigma[..., 0], noise)[..., None]
        sigma = torch.where(sigma > floor, sigma, 0)
        maps = observability, reachability, transition
        ctx.save_for_backward(*maps, wanted, L_factors, S_factors, U.mH @ S, sigma, L @ Vh.mH)
        return sigma

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, gradient: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, None]:
        observability, reachability, transition, wanted, L, S, left, sigma, right = ctx.saved_tensors
        alive = sigma > 0
        # The whole derivative of P P̄ and the like is twice this half, which takes the 2 of 2σ away.
        weight = torch.where(alive, gradient / torch.where(alive, sigma, 1), 0)[..., None]
        past = torch.zeros_like(transition).index_add_(-3, wanted - 1, left.mH @ (weight * left))
        future = torch.zeros_like(transition).index_add_(-3, wanted, right @ (weight * right.mH))
        after, before = _adjoints(past, future, transition)
        turned = after @ transition @ L @ L.mH + S.mH @ (S @ transition @ before)
        return observability @ before, after @ reachability, turned, None


def _adjoints(past: Tensor, future: Tensor, transition: Tensor) -> tuple[Tensor, Tensor]:
    """P̄ after each chunk and Q̄ before it: what was asked there and all that later, or earlier, borders make of it."""
    phi, asked_past, asked_future = transition.unbind(-3), past.unbind(-3), future.unbind(-3)
    after = [asked_past[-1]]
    for k in range(len(phi) - 1, 0, -1):
        after.append(asked_past[k - 1] + phi[k].mH @ after[-1] @ phi[k])
    before = [asked_future[0]]
    for k in range(len(phi) - 1):
        before.append(asked_future[k + 1] + phi[k] @ before[-1] @ phi[k].mH)
    return torch.stack(after[::-1], -3), torch.stack(before, -3)
