"""Entropy-ESS as a training objective: differentiable in the tensors that an operator is made of."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from statesize.check import require_finite
from statesize.errors import InputError
from statesize.io.devices import on_cpu_by_default
from statesize.operators import Convolution, Operator, Recurrence, Shared, SoftmaxAttention
from statesize.spectra.border_maps import BorderMaps, border_maps, chosen_borders
from statesize.spectra.cut import Positions, make_cut
from statesize.spectra.factorisation import border_factors, frobenius_norm, singular_values
from statesize.spectra.spectrum import effective_rank, largest

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
    """P̄ after each chunk and Q̄ before it: the gradient there and all that later, or earlier, borders make of it."""
    phi, asked_past, asked_future = transition.unbind(-3), past.unbind(-3), future.unbind(-3)
    after = [asked_past[-1]]
    for k in range(len(phi) - 1, 0, -1):
        after.append(asked_past[k - 1] + phi[k].mH @ after[-1] @ phi[k])
    before = [asked_future[0]]
    for k in range(len(phi) - 1):
        before.append(asked_future[k + 1] + phi[k] @ before[-1] @ phi[k].mH)
    return torch.stack(after[::-1], -3), torch.stack(before, -3)


@on_cpu_by_default
def differentiable_entropy(operator: Operator, positions: Positions = None) -> Tensor:
    """Entropy-ESS with gradients, computed in float64.

    exp(−Σ p ln p) is steep at σ → 0 and its derivative there is infinite. Singular values at and below 1e-10 σ_1
    therefore count as 0 and pull at nothing: the gradient is that of the function on operators of that rank.
    Repeated singular values need no care, and a zero operator has entropy 0 and gradient 0. Gradients of gradients
    are not offered.

    Recurrences cost O(L n²) and two QR and one singular value decomposition of n × n per position; all other operators
    form T and decompose H_i, so that it suits a few positions.

    Args:
        operator: Any operator of at least 2 positions.
        positions: None for all of 1 … L − 1, an int for that many evenly spread, or a list.

    Returns:
        (..., P) float64 on the operator's device, which is `measure(operator, positions=positions,
        engine="dense").entropy` but for round-off and r · 3e-9 of itself, r the number of singular values.

    Raises:
        InputError: Not an operator, a position out of range, or a T that overflows.

    Example:
        >>> gate = torch.full((6, 2), 2.0, requires_grad=True)
        >>> g = torch.Generator().manual_seed(0)
        >>> key, query = torch.randn(6, 2, generator=g), torch.randn(6, 2, generator=g)
        >>> ess = differentiable_entropy(Recurrence(gate.sigmoid(), key, query), positions=[2, 4])
        >>> (2.0 - ess).square().sum().backward()
        >>> gate.grad.shape
        torch.Size([6, 2])
    """
    if not isinstance(operator, Operator):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise InputError(f"operator must be an Operator, got {type(operator).__name__}. Give Dense(T) for a tensor T.")
    if isinstance(operator, Shared) or (operator.inputs, operator.outputs) != (1, 1):
        # Blocks are taken from T (..., L, L).
        kind = type(operator).__name__
        raise InputError(f"operator must have one readout and one input, got {kind}. Take them one by one.")
    exact = operator.to(torch.float64, "cpu")
    chosen = make_cut(operator.length, positions).positions
    if not chosen:
        return torch.zeros((*exact.batch_shape, 0), dtype=torch.float64, device=operator.device)
    entropy = _of_recurrence(exact, chosen) if isinstance(exact, Recurrence) else _of_blocks(exact, chosen)
    return entropy.to(operator.device)


def _of_recurrence(recurrence: Recurrence, positions: tuple[int, ...]) -> Tensor:
    real = recurrence.with_real_output()
    borders = chosen_borders(real, positions)
    index_of = {border: k for k, border in enumerate(borders)}
    wanted = torch.tensor([index_of[i] for i in positions])
    return effective_rank(border_singular_values(border_maps(real, borders), wanted))


def _of_blocks(operator: Operator, positions: tuple[int, ...]) -> Tensor:
    T = operator.dense()
    require_finite("T", T)
    # Beyond their window or their kernel these are 0.
    limited = isinstance(operator, Convolution | SoftmaxAttention)
    reach = int(operator.state_size().max()) if limited else operator.length
    entropies: list[Tensor] = []
    for i in positions:
        sigma = singular_values(T[..., i : i + reach, max(0, i - reach) : i])
        entropies.append(effective_rank(torch.where(sigma > RELATIVE_FLOOR * largest(sigma)[..., None], sigma, 0)))
    return torch.stack(entropies, -1)
