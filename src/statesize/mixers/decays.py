"""How the decays of S6 start: exp(−Δ rate), with rates 1 … n and step sizes Δ spread over channels."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def initial_log_rates(states: int, normalised: bool) -> Tensor:
    """Logarithms of the rates −A of the states of a channel.

    With A = −1 … −n, the states that a larger n adds forget ever faster, and their part of the memory is not used. The
    normalisation factor 1/n spreads the same rates over a fixed range (Parnichkun et al. 2025, arXiv 2504.19561).

    Args:
        states: n.
        normalised: Whether A is −1/n … −n/n.

    Returns:
        ln 1 … ln n, less ln n if normalised, (n,).

    Example:
        >>> initial_log_rates(4, normalised=True).exp()
        tensor([0.2500, 0.5000, 0.7500, 1.0000])
    """
    rates = torch.arange(1, states + 1, dtype=torch.get_default_dtype()).log()
    return rates - math.log(states) if normalised else rates


def spread_steps(count: int, smallest: float, largest: float) -> Tensor:
    """Step sizes at the middles of equal parts of a logarithmic scale.

    Args:
        count: How many.
        smallest: Lower end of the scale.
        largest: Its upper end.

    Returns:
        Step sizes, (count,), ascending.

    Example:
        >>> spread_steps(2, 0.001, 0.1)
        tensor([0.0032, 0.0316])
    """
    place = (torch.arange(count, dtype=torch.get_default_dtype()) + 0.5) / count
    return smallest * (largest / smallest) ** place


def inverse_softplus(values: Tensor) -> Tensor:
    """The bias that softplus turns into given values.

    Args:
        values: Positive numbers.

    Returns:
        ln(e^v − 1), of the same shape.
    """
    return values + (-torch.expm1(-values)).log()
