"""Entropy-ESS from a few log-determinants, without singular values."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

# Number of shifts: the range they span and the smallest σ that the rule is fitted to, relative to the bound on σ_1;
# found by a search over all three.
_RULES = {
    12: (3e-7, 0.7, 1e-8),
    16: (1e-7, 1.0, 1e-8),
    20: (3e-8, 1.5, 1e-9),
    22: (1e-8, 1.5, 1e-9),
    26: (3e-9, 1.5, 1e-9),
}
_FLOOR = 1e-3


@dataclass(frozen=True, eq=False)
class EntropyRule:
    """Weights with which σ and σ ln σ are sums of σ² and ln(1 + σ²/s²), for 0 ≤ σ ≤ 1.

    Attributes:
        shifts: s, (K,).
        sigma: Weights for σ, (K + 1,); the first belongs to σ².
        entropy: Weights for σ ln σ, (K + 1,).
        sigma_error: d with |error| ≤ d (σ + 1e-3) for σ.
        entropy_error: The same for σ ln σ.
    """

    shifts: Tensor
    sigma: Tensor
    entropy: Tensor
    sigma_error: float
    entropy_error: float

    def expected_error(self, rank: int) -> float:
        """The relative error of entropy-ESS that these errors allow when Σσ is half the bound on σ_1."""
        return 2 * (4 * self.sigma_error + self.entropy_error) * (1 + _FLOOR * rank)


@functools.cache
def entropy_rule(count: int) -> EntropyRule:
    """The minimax rule with a given number of shifts.

    Args:
        count: K, one of those the module lists.

    Returns:
        The rule; its errors are measured on a finer grid than it was fitted on.
    """
    low, high, smallest = _RULES[count]
    shifts = torch.logspace(math.log10(low), math.log10(high), count, dtype=torch.float64)
    grid = torch.logspace(math.log10(smallest), 0, 500, dtype=torch.float64)
    sigma, entropy = (
        _minimax(_basis(grid, shifts), f, (grid + _FLOOR).reciprocal()) for f in (grid, grid * grid.log())
    )
    fine = torch.logspace(-14, 0, 20011, dtype=torch.float64)
    basis, weight = _basis(fine, shifts), (fine + _FLOOR).reciprocal()
    errors = [float(((basis @ c - f) * weight).abs().max()) for c, f in ((sigma, fine), (entropy, fine * fine.log()))]
    return EntropyRule(shifts, sigma, entropy, 1.01 * errors[0], 1.01 * errors[1])


def rules_from(accuracy: float, rank: int) -> Iterator[EntropyRule]:
    """The rules from the shortest whose expected error is within an accuracy on, the most accurate one in any case.

    Args:
        accuracy: Relative accuracy of entropy-ESS.
        rank: The largest number of singular values that may differ from 0.

    Yields:
        Rules of rising accuracy.
    """
    for count in sorted(_RULES):
        rule = entropy_rule(count)
        if rule.expected_error(rank) <= accuracy or count == max(_RULES):
            yield rule


def entropies(
    rule: EntropyRule,
    log_determinants: Callable[[Tensor], Tensor],
    squared_norms: Tensor,
    bound: Tensor,
    rank: Tensor,
    limit: Tensor,
    error: Tensor,
) -> tuple[Tensor, Tensor]:
    """Entropy-ESS and its bound at all positions of many chunks.

    With g = σ/m, S = Σ g and Q = Σ g ln g, ESS = exp(ln S − Q/S). Both sums follow from ‖H‖_F² and φ(s) =
    ln det(I + HᵀH/s²) by the weights of the rule.

    Args:
        rule: From `rules_from`.
        log_determinants: φ at shifts (N,), giving (N, b).
        squared_norms: ‖H_i‖_F², (N, b).
        bound: m ≥ σ_1 of all positions of a chunk, (N,), positive.
        rank: The number of singular values that φ can see, (N, b).
        limit: The number of singular values of H_i, (N, b); those that φ does not see are within δ of 0.
        error: δ on each σ, (N, 1) or (N, b).

    Returns:
        Entropy-ESS and a bound on its error, (N, b); the bound is infinite where the sums are too small to tell.
    """
    m = bound[:, None]
    squares = squared_norms / m.square()
    phi = torch.stack([squares, *(log_determinants(shift * bound) for shift in rule.shifts.to(bound.device))], -1)
    S, Q = phi @ rule.sigma.to(bound.device), phi @ rule.entropy.to(bound.device)
    spread = (error / m).clamp(max=0.3)
    smooth = S + _FLOOR * rank
    S_noise, Q_noise = _noise(rule, phi, rank)
    S_error = rule.sigma_error * smooth + limit * spread + S_noise
    Q_error = rule.entropy_error * smooth + limit * (spread - torch.xlogy(spread, spread)) + Q_noise
    least = S - S_error
    change = torch.log(S / least) + Q_error / least + Q.abs() * S_error / (S * least)
    ess = torch.exp(torch.log(S.clamp(min=torch.finfo(S.dtype).tiny)) - Q / S)
    return ess, torch.where(least > 0, ess * torch.expm1(change), torch.inf)


def _noise(rule: EntropyRule, phi: Tensor, rank: Tensor) -> tuple[Tensor, Tensor]:
    # At a shift s the pivots of directions with σ < s are known to about eps m²/s² of themselves, at the worst not at
    # all; others are larger. −dφ/d ln s = 2 Σ σ²/(σ² + s²) falls with s, so its mean over the step to the next shift
    # bounds from below how many directions are not of that kind.
    shifts = rule.shifts.to(phi.device)
    doubt = (4 * torch.finfo(phi.dtype).eps / shifts.square()).clamp(max=1)
    steps = (shifts[1:] / shifts[:-1]).log()
    clear = torch.nn.functional.pad((phi[..., 1:-1] - phi[..., 2:]) / (2 * steps), (0, 1))
    # φ carries the same noise; over a step of at least 0.8 in ln s it can hide as many directions again, and half more.
    lost = doubt * (1 + 1.5 * doubt) * (rank[..., None] - clear).clamp(min=0)
    weights = torch.stack([rule.sigma[1:], rule.entropy[1:]], -1).abs().to(phi.device)
    noise = lost @ weights
    return noise[..., 0], noise[..., 1]


def _basis(sigma: Tensor, shifts: Tensor) -> Tensor:
    return torch.cat([sigma[:, None].square(), torch.log1p((sigma[:, None] / shifts).square())], 1)


def _minimax(basis: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    # Lawson: least squares again and again, each time with more weight where the error is large.
    scaled = basis * weight[:, None]
    size = scaled.square().sum(0).sqrt()
    A, f = scaled / size, target * weight
    ridge = 1e-12 * torch.eye(A.shape[1], dtype=A.dtype)
    emphasis, best, coefficients = torch.ones_like(weight), torch.inf, torch.zeros_like(size)
    for _ in range(30):
        root = emphasis.sqrt()
        Q, R = cast("Any", torch.linalg).qr(torch.cat([A * root[:, None], ridge]))
        right = Q.mT @ torch.cat([f * root, torch.zeros_like(size)])
        solution: Tensor = cast("Any", torch.linalg).solve_triangular(R, right[:, None], upper=True).squeeze(-1)
        error = (A @ solution - f).abs()
        largest = float(error.max())
        if largest < best:
            best, coefficients = largest, solution / size
        emphasis = emphasis * (error / largest + 1e-3)
        emphasis = emphasis / emphasis.mean()
    return coefficients
