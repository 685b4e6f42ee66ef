"""Entropy-ESS from a few log-determinants, without singular values (docs/appendix/engine-mathematics.md, "Entropies").

With g = σ/m, m ≥ σ_1, S = Σ g and Q = Σ g ln g, ESS = exp(ln S − Q/S). Both sums follow from ‖H‖_F² and φ(s) =
ln det(I + HᵀH/s²) by the weights of a rule. Shifts are taken from the largest down, in each chunk until all σ are so
much larger that φ is a straight line in ln s from there on.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, cast

import numba
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Array = npt.NDArray[np.float64]
Whole = npt.NDArray[np.int64]

# By number of shifts: the smallest and largest shift, and the smallest σ that the rule is fitted to, relative to the
# bound on σ_1; the best of a grid.
RULES = {
    12: (3e-7, 0.7, 1e-8),
    16: (1e-7, 1.0, 1e-8),
    20: (3e-8, 1.5, 1e-9),
    22: (1e-8, 1.5, 1e-9),
    26: (3e-9, 1.5, 1e-9),
}
# max ln(1 + x²) / x = 0.8047, at x = 1.9803, where (1 + x²) ln(1 + x²) = 2 x².
_STEEPEST = 0.805
# Errors are the largest on a grid of 20,011 points; between its points they are at most this factor larger, with 1 % to
# spare for the round-off of the weights (a test looks at 20 times as many points).
_BETWEEN_POINTS = 1.01
# The same for the quotients of `_tail_correction`, on a grid of 5003 points.
_BETWEEN_QUOTIENTS = 1.02
_FLOOR = 1e-3
# Where more singular values than this matter, their sum is so large that the floor does not.
_MANY = 256
# What the shifts that are left out may add to the error: a share of the rule's own, or what the accuracy leaves, of
# which the second number is used.
_SETTLED = 0.25
_BUDGET = 0.8
# What a σ may be off, relative to the bound on σ_1, so that σ ln σ is off by at most d − d ln d.
_FARTHEST = 0.3

_compile = cast("Any", numba).njit(cache=True, nogil=True, error_model="numpy")


@dataclass(frozen=True, eq=False)
class EntropyRule:
    """Weights with which σ and σ ln σ are sums of σ² and ln(1 + σ²/s²), for 0 ≤ σ ≤ 1."""

    shifts: Tensor  # s, (K,)
    sigma: Tensor  # weights for σ, (K + 1,); the first belongs to σ²
    entropy: Tensor  # weights for σ ln σ, (K + 1,)
    sigma_error: float  # d with |error| ≤ d (σ + 1e-3) for σ
    entropy_error: float  # the same for σ ln σ

    def expected_error(self, rank: int) -> float:
        """The relative error of entropy-ESS that these errors allow when Σσ is half the bound on σ_1."""
        return 2 * self.weighed(self.sigma_error, self.entropy_error) * (1 + _FLOOR * min(rank, _MANY))

    @staticmethod
    def weighed(sigma: float, entropy: float) -> float:
        """What errors of Σσ and Σσ ln σ add up to in the logarithm of entropy-ESS, times Σσ; typically."""
        return 4 * sigma + entropy


@functools.cache
def entropy_rule(count: int) -> EntropyRule:
    """The minimax rule with a number of shifts out of `RULES`."""
    return fitted_rule(count, *RULES[count])


def fitted_rule(count: int, low: float, high: float, smallest: float) -> EntropyRule:
    """The minimax rule with shifts from `low` to `high`, fitted from `smallest` to 1, its errors on a finer grid."""
    shifts = torch.logspace(math.log10(low), math.log10(high), count, dtype=torch.float64)
    grid = torch.logspace(math.log10(smallest), 0, 500, dtype=torch.float64)
    sigma, entropy = (
        _minimax(_basis(grid, shifts), f, (grid + _FLOOR).reciprocal()) for f in (grid, grid * grid.log())
    )
    fine = torch.logspace(-14, 0, 20011, dtype=torch.float64)
    basis, weight = _basis(fine, shifts), (fine + _FLOOR).reciprocal()
    errors = [float(((basis @ c - f) * weight).abs().max()) for c, f in ((sigma, fine), (entropy, fine * fine.log()))]
    return EntropyRule(shifts, sigma, entropy, *(_BETWEEN_POINTS * error for error in errors))


def rules_from(accuracy: float, rank: int) -> Iterator[EntropyRule]:
    """Rules of rising accuracy, from the shortest whose expected error is small enough on; the best one in any case."""
    for count in sorted(RULES):
        rule = entropy_rule(count)
        if rule.expected_error(rank) <= accuracy or count == max(RULES):
            yield rule


def entropies(
    rule: EntropyRule,
    accuracy: float,
    log_determinants: Callable[[Tensor, Tensor], Tensor],
    squared_norms: Tensor,
    bound: Tensor,
    rank: Tensor,
    limit: Tensor,
    error: Tensor,
) -> tuple[Tensor, Tensor]:
    """Entropy-ESS and a bound on its error at all positions of many chunks, (N, b); infinite where nothing is known."""
    # No shifts are spent beyond the accuracy, which the bound may exceed. log_determinants: φ (m, b) of chunks (m,) at
    # shifts (m,); squared_norms ‖H_i‖_F² (N, b); bound m ≥ σ_1 of all positions of a chunk, (N,), positive; rank: how
    # many singular values φ can see, limit: how many H_i has, (N, b); error: δ on each σ, or on their average, (N, 1)
    # or (N, b).
    m = bound[:, None]
    phi, first = _until_settled(rule, accuracy, log_determinants, bound, rank)
    phi, unseen, lost = _extended(rule, phi, first, rank)
    phi = torch.cat([(squared_norms / m.square())[..., None], phi], -1)
    correction = _tail_correction(rule.shifts.shape[0]).to(bound.device)[first][..., None]
    S, Q = (
        phi @ weights.to(bound.device) + correction[:, row, 0] * unseen
        for row, weights in enumerate((rule.sigma, rule.entropy))
    )
    S_noise, Q_noise = (
        lost @ weights[1:].abs().to(bound.device) + correction[:, row, 1] * unseen
        for row, weights in enumerate((rule.sigma, rule.entropy))
    )
    spread = (error / m).clamp(max=_FARTHEST)
    smooth = S + _FLOOR * rank
    S_error = rule.sigma_error * smooth + limit * spread + S_noise
    Q_error = rule.entropy_error * smooth + limit * (spread - torch.xlogy(spread, spread)) + Q_noise
    least = S - S_error
    change = torch.log(S / least) + Q_error / least + Q.abs() * S_error / (S * least)
    ess = torch.exp(torch.log(S.clamp(min=torch.finfo(S.dtype).tiny)) - Q / S)
    return ess, torch.where((least > 0) & (spread < _FARTHEST), ess * torch.expm1(change), torch.inf)


def _until_settled(
    rule: EntropyRule,
    accuracy: float,
    log_determinants: Callable[[Tensor, Tensor], Tensor],
    bound: Tensor,
    rank: Tensor,
) -> tuple[Tensor, Tensor]:
    """φ (N, b, K) from the largest shift down to the first that bounds the rest closely enough, and which, (N,)."""
    shifts, count = rule.shifts.to(bound.device), rule.shifts.shape[0]
    own = rule.weighed(rule.sigma_error, rule.entropy_error)
    weights = [rule.weighed(*radii) for radii in cast("Any", _tail_correction(count)[:, :, 1]).tolist()]
    phi = torch.zeros(*rank.shape, count, dtype=bound.dtype, device=bound.device)
    first, least = torch.zeros_like(rank[:, 0]), torch.zeros_like(phi[..., 0])
    held = phi.numpy(), first.numpy(), least.numpy(), rank.numpy(), rule.shifts.numpy()
    unresolved = torch.arange(rank.shape[0], device=bound.device)
    for k in reversed(range(count)):
        logs = log_determinants(unresolved, shifts[k] * bound[unresolved])
        budget = _BUDGET * accuracy - own
        unresolved = torch.from_numpy(_settle(*held, unresolved.numpy(), logs.numpy(), k, weights[k], own, budget))
        if not unresolved.numel():
            break
    return phi, first


@_compile
def _settle(
    phi: Array,
    first: Whole,
    least: Array,
    rank: Whole,
    shifts: Array,
    unresolved: Whole,
    logs: Array,
    k: int,
    weight: float,
    own: float,
    budget: float,
) -> Whole:
    # Chunks that φ at the next shift (m, b) does not settle, either; Σσ is at least `least`, (N, b).
    left, count = np.empty_like(unresolved), 0
    step = 2 * math.log(shifts[k + 1] / shifts[k]) if k + 1 < len(shifts) else 1.0
    for m, n in enumerate(unresolved):
        settled = 0 < k < len(shifts) - 1
        for j in range(logs.shape[1]):
            phi[n, j, k] = logs[m, j]
            # ln(1 + x²) < 0.805 x, so Σσ > s φ(s) / 0.805.
            least[n, j] = max(least[n, j], logs[m, j] * shifts[k] / _STEEPEST)
            if settled:
                unseen = rank[n, j] - (phi[n, j, k] - phi[n, j, k + 1]) / step
                spare = budget * least[n, j] - own * _FLOOR * rank[n, j]
                settled = unseen * weight <= max(_SETTLED * own * least[n, j], spare)
        if settled:
            first[n] = k
        else:
            left[count] = n
            count += 1
    return left[:count]


def _extended(rule: EntropyRule, phi: Tensor, first: Tensor, rank: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """φ at all shifts, by a line in ln s where it is not known; the directions that the line leaves out; noise of φ."""
    shifts = rule.shifts.to(phi.device)
    # At a shift s the pivots of directions with σ < s are known to about eps m²/s² of themselves, at the worst not at
    # all; others are larger. −dφ/d ln s = 2 Σ σ²/(σ² + s²) falls with s, so its mean over the step to the next shift
    # bounds from below how many directions are not of that kind.
    doubt = (4 * torch.finfo(phi.dtype).eps / shifts.square()).clamp(max=1)
    falls = (phi[..., :-1] - phi[..., 1:]) / (2 * (shifts[1:] / shifts[:-1]).log())
    clear = torch.nn.functional.pad(falls, (0, 1))
    # φ carries the same noise; over a step of at least 0.8 in ln s it can hide as many directions again, and half more.
    lost = doubt * (1 + 1.5 * doubt) * (rank[..., None] - clear).clamp(min=0)
    chunk = torch.arange(phi.shape[0], device=phi.device)
    here, slope, noise, next_noise = (
        part[chunk, :, at, None] for part, at in ((phi, first), (clear, first), (lost, first), (lost, first + 1))
    )
    logarithm = shifts.log()
    fan = (logarithm[first, None] - logarithm).clamp(min=0)[:, None]
    step = (logarithm[first + 1] - logarithm[first])[:, None, None]
    computed = fan == 0
    line = torch.where(computed, phi, here + 2 * slope * fan)
    doubtful = torch.where(computed, lost, noise + (noise + next_noise) * fan / step)
    return line, torch.where(first[:, None] > 0, rank - slope.squeeze(-1), 0.0), doubtful


@functools.cache
def _tail_correction(count: int) -> Tensor:
    """What a line in ln s for φ below the shift k leaves out: for σ and σ ln σ, centre and radius, (K, 2, 2)."""
    # A singular value σ adds a(σ) = (ln(1 + σ²/s_k²) − ln(1 + σ²/s_{k+1}²)) / (2 ln(s_{k+1}/s_k)) to the slope of the
    # line. What the weights make of its exact φ and of the line differ by a number between (centre − radius)(1 − a(σ))
    # and (centre + radius)(1 − a(σ)), so the sums differ by centre · u to within radius · u, where u = rank − Σ a(σ).
    # 0 for the k at which no line can start.
    rule = entropy_rule(count)
    sigma = torch.logspace(-14, 0, 5003, dtype=torch.float64)
    waves = _basis(sigma, rule.shifts)[:, 1:]
    weights = torch.stack([rule.sigma[1:], rule.entropy[1:]], -1)
    # 1 − a, without cancellation where σ is large.
    inverse = torch.log1p((rule.shifts / sigma[:, None]).square())
    correction = torch.zeros(count, 2, 2, dtype=torch.float64)
    for k in range(1, count - 1):
        fan = (rule.shifts[k] / rule.shifts[:k]).log()
        left = (inverse[:, k + 1] - inverse[:, k]) / (2 * (rule.shifts[k + 1] / rule.shifts[k]).log())
        line = waves[:, k, None] + 2 * (1 - left)[:, None] * fan
        ratio = ((waves[:, :k] - line) @ weights[:k])[left > 1e-9] / left[left > 1e-9, None]
        low, high = ratio.amin(0), ratio.amax(0)
        correction[k] = torch.stack([(high + low) / 2, _BETWEEN_QUOTIENTS * (high - low) / 2], -1)
    return correction


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
