"""From Hankel singular values to state sizes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from statesize.check import real_number, real_numbers, require_finite, require_floating, require_real, shape
from statesize.errors import InputError
from statesize.spectra.spectrum import effective_rank, largest


def tolerance_ess(values: Tensor, tolerance: float | Sequence[float], relative: bool = False) -> Tensor:
    """Tolerance-ESS: how many singular values exceed a threshold.

    Args:
        values: Hankel singular values, (..., r), descending.
        tolerance: τ, one number or several, in units of σ; with `relative`, ρ in units of σ_1.
        relative: Count σ_m > ρ σ_1 instead of σ_m > τ.

    Returns:
        (...) int64 for one number; (..., K) for several.

    Raises:
        InputError: A negative or non-finite tolerance, or values that are not floating, not finite or negative.

    Example:
        >>> tolerance_ess(torch.tensor([2.0, 0.5, 1e-9]), 1e-3)
        tensor(2)
    """
    _require_singular_values(values)
    # A threshold in float32 may be the value that stands above it.
    values = values.double()
    number = real_number(tolerance)
    listed = tolerance if number is None and isinstance(tolerance, Iterable) else [tolerance]
    thresholds = torch.tensor(real_numbers("tolerance", listed), dtype=torch.float64, device=values.device)
    scale = largest(values)[..., None] if relative else values.new_ones(*values.shape[:-1], 1)
    counts = (values[..., None, :] > (thresholds * scale)[..., None]).sum(-1)
    return counts if number is None else counts[..., 0]


def entropy_ess(values: Tensor) -> Tensor:
    """Entropy-ESS: exp(−Σ p ln p) with p = σ/Σσ, the effective rank of Roy and Vetterli (2007).

    Args:
        values: Hankel singular values, (..., r).

    Returns:
        (...), in 1 … r, and 0 where every value is 0. Differentiable; in the dtype of values, float32 at least.

    Raises:
        InputError: Values that are not floating, not finite or negative.

    Example:
        >>> entropy_ess(torch.tensor([[3.0, 3.0, 0.0], [0.0, 0.0, 0.0]]))
        tensor([2., 0.])
    """
    _require_singular_values(values)
    return effective_rank(values.double()).to(torch.promote_types(values.dtype, torch.float32))


def energy_ess(values: Tensor, epsilon: float) -> Tensor:
    """Energy-ESS: the smallest m with Σ_{k ≤ m} σ_k² ≥ (1 − ε) Σ σ².

    Args:
        values: All Hankel singular values, (..., r), in any order.
        epsilon: ε in [0, 1).

    Returns:
        (...) int64, 0 where every value is 0.

    Raises:
        InputError: ε out of range, or values that are not floating, not finite or negative.

    Example:
        >>> energy_ess(torch.tensor([3.0, 1.0, 0.1]), epsilon=0.01)
        tensor(2)
    """
    _require_singular_values(values)
    share = require_real("epsilon", epsilon, least=0, below=1)
    values = values.double().sort(-1, descending=True).values
    scale = largest(values)
    alive = scale > 0
    energy = (values / torch.where(alive, scale, torch.ones_like(scale))[..., None]).square()
    # Summed from the smallest on, so that a tail far below the head is not lost.
    tail = energy.flip(-1).cumsum(-1).flip(-1)
    return (tail > share * energy.flip(-1).sum(-1, keepdim=True)).sum(-1)


def utilisation(ess: Tensor, ceiling: Tensor, binds: Tensor) -> Tensor:
    """ESS as a share of its ceiling, where the layer's own size is what limits it.

    That is a share of the state, except for a cache that keeps every position, of whose ceiling it is a share.

    Args:
        ess: (..., P).
        ceiling: (P,) or broadcastable.
        binds: Whether the size is what limits ESS, as `Measurement.binds`.

    Returns:
        (..., P) floating, NaN at other cuts.

    Example:
        >>> utilisation(torch.tensor([1.0, 2.0]), torch.tensor([1, 4]), torch.tensor([False, True]))
        tensor([   nan, 0.5000])
    """
    ratio = ess / ceiling.clamp(min=1)
    return torch.where(binds & (ceiling > 0), ratio, torch.full_like(ratio, torch.nan))


def _require_singular_values(values: Tensor) -> None:
    require_floating("values", values)
    if values.ndim < 1:
        raise InputError(f"values must have shape (..., r), got {shape(values)}")
    require_finite("values", values)
    if bool((values < 0).any()):
        raise InputError(f"values must be singular values, at least 0, got {values[values < 0][0].item():.3g}")
