"""How the decays of S6 start: exp(−Δ rate), with rates 1 … n and step sizes Δ spread over channels."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from statesize.lab.mixers.config import ModelConfig


def initial_log_rates(states: int, normalised: bool) -> Tensor:
    """Logarithms of the rates −A of a channel's n states: ln 1 … ln n, less ln n if normalised, (n,)."""
    # With A = −1 … −n, the states that a larger n adds forget ever faster, and their part of the memory is not used.
    # The normalisation factor 1/n spreads the same rates over a fixed range (Parnichkun et al. 2025, arXiv 2504.19561).
    rates = torch.arange(1, states + 1, dtype=torch.get_default_dtype()).log()
    return rates - math.log(states) if normalised else rates


def selective_initial_values(config: ModelConfig, units: int, states: int) -> dict[str, Tensor]:
    """First values of A and of the bias of Δ in heads or channels with the decays of S6, by parameter name."""
    steps = spread_steps(units, config.smallest_step, config.largest_step)
    rates = initial_log_rates(states, config.normalised)
    return {"step_projection.bias": inverse_softplus(steps), "log_rate": rates.expand(units, -1)}


def head_initial_values(config: ModelConfig) -> dict[str, Tensor]:
    """First values of A and of the bias of Δ in heads with one decay each, as of Mamba-2, by parameter name."""
    fraction = (torch.arange(config.heads, dtype=torch.get_default_dtype()) + 0.5) / config.heads
    steps = spread_steps(config.heads, config.smallest_step, config.largest_step)
    # Large steps beside small rates: no head forgets all within a few tokens.
    return {"step_projection.bias": inverse_softplus(steps), "log_rate": (16 - 15 * fraction).log()}


def spread_steps(count: int, smallest: float, largest: float) -> Tensor:
    """Step sizes at the middles of equal parts of a logarithmic scale, (count,), ascending."""
    fraction = (torch.arange(count, dtype=torch.get_default_dtype()) + 0.5) / count
    return smallest * (largest / smallest) ** fraction


def inverse_softplus(values: Tensor) -> Tensor:
    """ln(e^v − 1), the bias that softplus turns into positive values v."""
    return values + (-torch.expm1(-values)).log()
