"""Hankel singular values of a recurrence at borders, with gradients that never divide by a gap between them."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from statesize.check import require_finite
from statesize.spectra.factorisation import frobenius_norm, triangular_factor
from statesize.spectra.gradients.border_maps import BorderMaps

RELATIVE_FLOOR = 1e-10
"""Singular values below this share of σ_1 count as 0: their directions are too little known for a gradient."""


def border_singular_values(maps: BorderMaps, wanted: Tensor) -> Tensor:
    """σ(S_k L_k) at some borders β_k, from square roots of the two Gramians carried by QR.

    With P_{k+1} = Φ_k P_k Φ_kᵀ + R_k R_kᵀ and Q_k = Φ_kᵀ Q_{k+1} Φ_k + O_kᵀ O_k (R arriving, O observed), P = L Lᵀ,
    Q = Sᵀ S and S L = U Σ Vᵀ, the derivative of a singular value is

        dσ = (uᵀ S dP Sᵀ u + vᵀ Lᵀ dQ L v) / 2σ,

    which the adjoints of the two recursions carry to all chunks. Unlike those of singular vectors it needs no
    1/(σ_i² − σ_j²), and the values themselves come from square roots, not from the Gramians.

    Args:
        maps: The recurrence between the borders 0 … c.
        wanted: Which borders k, (P,) int64, none of them 0 or c.

    Returns:
        (..., P, n), descending; 0, with gradient 0, at and below the larger of 1e-10 σ_1 and the round-off.

    Raises:
        InputError: T overflows.
    """
    return cast("Any", _BorderSingularValues).apply(*maps, wanted)


class _BorderSingularValues(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, observed: Tensor, arriving: Tensor, passed: Tensor, wanted: Tensor) -> Tensor:
        reach, observe = _factors(observed, arriving, passed)
        # reach[k] belongs to border k, observe[k] to border k + 1.
        L, S = reach.index_select(-3, wanted), observe.index_select(-3, wanted - 1)
        product = S @ L
        require_finite("T", product)
        U, sigma, Vh = cast("Any", torch.linalg).svd(product)
        noise = 8 * sigma.shape[-1] * torch.finfo(sigma.dtype).eps * frobenius_norm(S) * frobenius_norm(L)
        floor = torch.maximum(RELATIVE_FLOOR * sigma[..., 0], noise)[..., None]
        sigma = torch.where(sigma > floor, sigma, 0)
        ctx.save_for_backward(observed, arriving, passed, wanted, reach, observe, U.mH @ S, sigma, L @ Vh.mH)
        return sigma

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, gradient: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, None]:
        observed, arriving, passed, wanted, reach, observe, left, sigma, right = ctx.saved_tensors
        alive = sigma > 0
        # The whole derivative of P P̄ and the like is twice this half, which takes the 2 of 2σ away.
        weight = torch.where(alive, gradient / torch.where(alive, sigma, 1), 0)[..., None]
        past = torch.zeros_like(passed).index_add_(-3, wanted - 1, left.mH @ (weight * left))
        future = torch.zeros_like(passed).index_add_(-3, wanted, right @ (weight * right.mH))
        after, before = _adjoints(past, future, passed)
        turned = after @ passed @ reach @ reach.mH + observe.mH @ (observe @ passed @ before)
        return observed @ before, after @ arriving, turned, None


def _factors(observed: Tensor, arriving: Tensor, passed: Tensor) -> tuple[Tensor, Tensor]:
    """L at the borders 0 … c − 1 and S at 1 … c, (..., c, n, n)."""
    phi, enter, show = passed.unbind(-3), arriving.unbind(-3), observed.unbind(-3)
    reach, observe = [torch.zeros_like(phi[0])], [torch.zeros_like(phi[0])]
    for k in range(len(phi) - 1):
        reach.append(triangular_factor(torch.cat([(phi[k] @ reach[-1]).mH, enter[k].mH], -2)).mH)
    for k in range(len(phi) - 1, 0, -1):
        observe.append(triangular_factor(torch.cat([show[k], observe[-1] @ phi[k]], -2)))
    return torch.stack(reach, -3), torch.stack(observe[::-1], -3)


def _adjoints(past: Tensor, future: Tensor, passed: Tensor) -> tuple[Tensor, Tensor]:
    """P̄ after each chunk and Q̄ before it: what was asked there and all that later, or earlier, borders make of it."""
    phi, asked_past, asked_future = passed.unbind(-3), past.unbind(-3), future.unbind(-3)
    after = [asked_past[-1]]
    for k in range(len(phi) - 1, 0, -1):
        after.append(asked_past[k - 1] + phi[k].mH @ after[-1] @ phi[k])
    before = [asked_future[0]]
    for k in range(len(phi) - 1):
        before.append(asked_future[k + 1] + phi[k] @ before[-1] @ phi[k].mH)
    return torch.stack(after[::-1], -3), torch.stack(before, -3)
