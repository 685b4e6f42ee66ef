"""Where decays in the form of S6 start: ln a = Δ A with rates A < 0 and steps Δ = softplus(W x + b)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from statesize.lab.mixers.config import ModelConfig


def step_projection(config: ModelConfig, units: int) -> nn.Linear:
    """W x + b of so many units, where softplus(b) is spread from `smallest_step` to `largest_step`, ascending."""
    projection, steps = nn.Linear(config.width, units), spread_steps(config, units)
    with torch.no_grad():
        projection.bias.copy_(steps + (-torch.expm1(-steps)).log())
    return projection


def spread_steps(config: ModelConfig, units: int) -> Tensor:
    """Step sizes at the middles of equal parts of a logarithmic scale, (units,), ascending."""
    return config.smallest_step * (config.largest_step / config.smallest_step) ** _middles(units)


def selective_log_rates(config: ModelConfig, units: int) -> nn.Parameter:
    """ln(−A) of so many units, (units, n): ln 1 … ln n, less ln n if `normalised`."""
    # With A = −1 … −n, the states that a larger n adds forget ever faster, and their part of the memory is not used.
    # The normalisation factor 1/n spreads the same rates over a fixed range (Parnichkun et al. 2025, arXiv 2504.19561).
    rates = torch.arange(1, config.key_size + 1, dtype=torch.get_default_dtype()).log()
    if config.normalised:
        rates = rates - math.log(config.key_size)
    return nn.Parameter(rates.expand(units, -1).clone())


def head_log_rates(heads: int) -> nn.Parameter:
    """ln(−A) of heads with one decay each, (H,), from ln 16 down to ln 1."""
    # Large steps beside small rates: no head forgets all within a few tokens.
    return nn.Parameter((16 - 15 * _middles(heads)).log())


def _middles(count: int) -> Tensor:
    return (torch.arange(count, dtype=torch.get_default_dtype()) + 0.5) / count
