"""Entropy-ESS as a training objective: differentiable in the tensors that an operator is made of."""

from __future__ import annotations

import torch
from torch import Tensor

from statesize.check import require_finite
from statesize.errors import InputError
from statesize.operators import Convolution, Operator, Recurrence, SoftmaxAttention
from statesize.spectra.border_maps import border_maps, chosen_borders
from statesize.spectra.cut import Positions, make_cut
from statesize.spectra.effective_rank import effective_rank, largest
from statesize.spectra.factorisation import singular_values
from statesize.spectra.gradients.border_spectra import RELATIVE_FLOOR, border_singular_values
from statesize.spectra.readouts import require_one_port


def differentiable_entropy(operator: Operator, positions: Positions = None) -> Tensor:
    """Entropy-ESS with gradients, computed in float64.

    exp(−Σ p ln p) is steep at σ → 0 and its derivative there is infinite. Singular values at and below 1e-10 σ_1
    therefore count as 0 and pull at nothing: the gradient is that of the function on operators of that rank.
    Repeated singular values need no care, and a zero operator has entropy 0 and gradient 0. Gradients of gradients
    are not offered.

    Recurrences cost O(L n²) and two QR and one singular value decomposition of n × n a position; all other operators
    form T and decompose H_i, so that a few positions are the ones to ask.

    Args:
        operator: Any operator of at least 2 positions.
        positions: None for all of 1 … L − 1, an int for that many evenly spread, or a list.

    Returns:
        (..., P) float64, equal to `measure(operator, positions=positions, engine="dense").entropy` but for round-off
        and r · 3e-9 of itself, r the number of singular values.

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
        raise InputError(f"operator must be a statesize Operator, got {type(operator).__name__}; wrap T in Dense(T)")
    require_one_port(operator)
    exact = operator if operator.dtype == torch.float64 else operator.to(dtype=torch.float64)
    chosen = make_cut(operator.length, positions).positions
    if not chosen:
        return torch.zeros((*exact.batch_shape, 0), dtype=torch.float64, device=exact.device)
    return _of_recurrence(exact, chosen) if isinstance(exact, Recurrence) else _of_blocks(exact, chosen)


def _of_recurrence(recurrence: Recurrence, positions: tuple[int, ...]) -> Tensor:
    real = recurrence.with_real_output()
    borders = chosen_borders(real, positions)
    place = {border: k for k, border in enumerate(borders)}
    wanted = torch.tensor([place[i] for i in positions], device=real.device)
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
