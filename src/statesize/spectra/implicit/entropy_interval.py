"""An interval for the entropy of singular values, from random vectors and a subspace that holds the largest."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from statesize.spectra.implicit.krylov_space import ProjectedGram
from statesize.spectra.spectrum import effective_rank

# Nodes of the integral of arctan(u)/u from 0 to 1. The integrand has its nearest poles at ±i, so that 20 nodes give all
# digits.
_NODES, _WEIGHTS = (torch.from_numpy(part) for part in np.polynomial.legendre.leggauss(20))


def entropy_parts(sigma: Tensor, c: float) -> tuple[Tensor, Tensor]:
    """B and D of σ ≥ 0, (...) each: σ (c − ln σ) = B − D."""
    y = sigma * math.exp(-c)
    ratio = torch.minimum(y, 1 / y.clamp(min=1))
    nodes, weights = (_NODES.to(y) + 1) / 2, _WEIGHTS.to(y) / 2
    both = 2 / math.pi * y * ((torch.atan(ratio[..., None] * nodes) / nodes) @ weights)
    product = torch.xlogy(y, y)
    return math.exp(c) * ((-product).clamp(min=0) + both), math.exp(c) * (product.clamp(min=0) + both)


CONFIDENCE = 0.95
"""How often an interval holds the true value."""
FEW = 4
"""The estimates of fewer probes show less of their spread than f(A) of a single one."""


@dataclass(frozen=True, eq=False)
class FixedPart:
    """An operator of known traces: Ritz values (q,) with vectors (q, q) in the first q coordinates of a space."""

    ritz: Tensor
    ritz_vectors: Tensor


@dataclass(frozen=True, eq=False)
class Probes:
    """p orthonormal vectors in the coordinates of a space, and the known operator that preceded them."""

    dimension: int  # n, of which p vectors were drawn
    coordinates: Tensor  # (p, ≤ K)
    fixed: FixedPart

    def traces(self, space: ProjectedGram, function: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
        """Estimates of Σ f(σ) of an operator monotone f(σ²), from below and from above, (p,) each."""
        z, (q, values) = self.coordinates, (self.fixed.ritz.shape[0], function(self.fixed.ritz))
        fixed = values.sum() - self.dimension * _form(z[:, :q], self.fixed.ritz_vectors, values)
        low = _form(z, space.nystrom_vectors[: z.shape[1]], function(space.nystrom))
        high = _form(z, space.ritz_vectors[: z.shape[1]], function(space.ritz))
        return fixed + self.dimension * low, fixed + self.dimension * high

    def spread(self, space: ProjectedGram, function: Callable[[Tensor], Tensor]) -> tuple[float, float]:
        """Standard deviation of n zᵀ G z over z, G = f(A) − F, from G z, and how many directions it comes from."""
        n, fixed = self.dimension, self.fixed
        once = _image(self.coordinates, space.ritz, space.ritz_vectors, function)
        once[:, : fixed.ritz.shape[0]] -= _image(self.coordinates, fixed.ritz, fixed.ritz_vectors, function)
        twice = _image(once, space.ritz, space.ritz_vectors, function)
        twice[:, : fixed.ritz.shape[0]] -= _image(once, fixed.ritz, fixed.ritz_vectors, function)
        # n times the means of zᵀ G z, zᵀ G² z and zᵀ G⁴ z.
        p, width = self.coordinates.shape
        trace, square, fourth = (
            n / p * float((one * other).sum())
            for one, other in ((once[:, :width], self.coordinates), (once, once), (twice, twice))
        )
        return math.sqrt(2 * n / (n + 2) * max(0.0, square - trace**2 / n)), square**2 / fourth if fourth else 1.0

    def margin(self, estimates: Tensor, spread: float = 0.0, freedom: float = 1.0, width: float = 0.0) -> float:
        """How far the mean of estimates (p,), whose spread is at least that, may be off at each end of an interval."""
        p = estimates.shape[0]
        if p == self.dimension:
            return 0.0
        if p >= FEW:
            spread, freedom = max(float(estimates.std()), spread), p - 1
        # Vectors of a random frame leave less to chance than independent ones, by the share of n that they are.
        error = math.sqrt((1 - p / self.dimension) / p) * spread
        special, freedom = cast("Any", import_module("scipy.special")), max(freedom, 1.0)  # importing it takes time
        # By Student's t. No error misses both ends of an interval that is wide by itself (Imbens and Manski 2004).
        apart = width / error if error else math.inf
        missed = special.stdtr(freedom, -special.stdtrit(freedom, CONFIDENCE) - apart)
        return float(special.stdtrit(freedom, min((1 + CONFIDENCE) / 2, CONFIDENCE + missed))) * error


@dataclass(frozen=True)
class EntropyInterval:
    """Between which numbers an entropy-ESS lies, with the probability CONFIDENCE."""

    low: float
    high: float
    sampling: float = 0.0  # what the spread over probes makes of half the interval, relative to the entropy-ESS
    resolved: float = 0.0  # which share of that variance a space takes out, were it known before probes are drawn

    @property
    def middle(self) -> float:
        """The estimate."""
        return (self.low + self.high) / 2

    @property
    def accuracy(self) -> float:
        """Half of the interval relative to its middle."""
        return (self.high - self.low) / (2 * self.middle) if self.middle else 0.0


def entropy_interval(space: ProjectedGram, probes: Probes) -> EntropyInterval:
    """The interval that the probes give; their coordinates must lie in the space."""
    sums = probes.traces(space, lambda sigma: sigma)
    logarithmic = probes.traces(space, lambda sigma: torch.xlogy(sigma, sigma))
    certain = float(space.nystrom.sum())
    total = max(float((sums[0] + sums[1]).mean()) / 2, certain)
    if not total > 0:
        return EntropyInterval(0.0, 0.0)
    of_sums = probes.spread(space, lambda sigma: sigma) if sums[0].shape[0] < FEW else (0.0, 0.0)
    smallest = max(certain, float(sums[0].mean()) - probes.margin(sums[0], *of_sums))
    largest = max(smallest, float(sums[1].mean()) + probes.margin(sums[1], *of_sums))
    # At the estimate, and at either end, H changes with L alone, to first order.
    starts = (((sums[0] + sums[1]) / 2, (logarithmic[0] + logarithmic[1]) / 2), *zip(sums, logarithmic, strict=True))
    changes = [
        _change(space, probes, 1 + float(logs.mean()) / max(float(sigma.mean()), certain)) for sigma, logs in starts
    ]
    entropies = [change.entropies(smallest, largest) for change in changes]
    n = probes.dimension
    error = round_off(space, n)
    return EntropyInterval(
        low=math.exp(min(max(max(low for low, _ in entropies) - error, 0.0), math.log(n))),
        high=math.exp(min(max(min(high for _, high in entropies) + error, 0.0), math.log(n))),
        sampling=changes[0].margin / total,
        resolved=changes[0].resolved,
    )


@dataclass(frozen=True)
class _Change:
    """Between which numbers L = Σσ (c − ln σ) lies, for one c; H = ln S − c + L / S with S = Σσ."""

    c: float
    least: float
    most: float
    margin: float  # what the spread over probes makes of them
    resolved: float  # which share of that variance a space takes out, were it known before probes are drawn

    def entropies(self, smallest: float, largest: float) -> tuple[float, float]:
        """Between which numbers H lies where S does so; for one L it is least where S = L."""
        lowest = min(max(self.least, smallest), largest)
        return self._entropy(self.least, lowest), max(self._entropy(self.most, S) for S in (smallest, largest))

    def _entropy(self, L: float, S: float) -> float:
        return math.log(S) - self.c + L / S


def _change(space: ProjectedGram, probes: Probes, c: float) -> _Change:
    """L as the difference of its two parts."""
    growing, falling = (probes.traces(space, lambda sigma, part=part: entropy_parts(sigma, c)[part]) for part in (0, 1))
    low, high = growing[0] - falling[1], growing[1] - falling[0]
    width = float((high - low).mean())
    # A few probes may miss a few directions; the part of these in the space belongs to the spread.
    resolved = _resolved_spread(space, probes, c, float((low + high).mean()) / 2)
    few = len(low) < FEW
    spread, freedom = probes.spread(space, lambda sigma: _changes(sigma, c)) if few else (0.0, 0.0)
    deviation = max(spread, resolved) if few else float(((low + high) / 2).std())
    margins = [probes.margin(part, max(spread, resolved), freedom, width) for part in (low, high)]
    return _Change(
        c,
        least=float(low.mean()) - margins[0],
        most=float(high.mean()) + margins[1],
        margin=max(margins),
        resolved=min(1.0, (resolved / deviation) ** 2) if resolved else 0.0,
    )


def exact_interval(space: ProjectedGram) -> EntropyInterval:
    """Where the space is the whole: only round-off is left."""
    entropy, n = float(effective_rank(space.ritz)), space.ritz.shape[0]
    change = round_off(space, n)
    return EntropyInterval(min(entropy, max(1.0, entropy * math.exp(-change))), min(n, entropy * math.exp(change)))


def round_off(space: ProjectedGram, dimension: int) -> float:
    """How far round-off in n values σ moves their entropy; as `bounds.entropy_bound`, where Σσ is about that known."""
    total = float(space.nystrom.sum())
    share = min(1.0, space.summed_error(dimension) / total) if total else 0.0
    if not 0 < share < 1:
        return 0.0
    return share * math.log(dimension) - share * math.log(share) - (1 - share) * math.log1p(-share)


def _resolved_spread(space: ProjectedGram, probes: Probes, c: float, trace: float) -> float:
    """The standard deviation over probes that a space explains; what it leaves of a trace is spread evenly."""
    found, fixed = _changes(space.ritz, c), _changes(probes.fixed.ritz, c)
    # ‖Σ f u uᵀ − Σ g v vᵀ‖_F² for orthonormal u and v.
    shared = (space.ritz_vectors[: len(fixed)].mT @ probes.fixed.ritz_vectors).square()
    within = float(found @ found + fixed @ fixed - 2 * found @ shared @ fixed)
    n, trace = probes.dimension, trace - float(fixed.sum())
    rest = trace - float(found.sum() - fixed.sum())
    energy = within + rest**2 / max(1, n - len(found)) - trace**2 / n
    return math.sqrt(max(0.0, 2 * n / (n + 2) * energy))


def _changes(sigma: Tensor, c: float) -> Tensor:
    """σ (c − ln σ)."""
    return c * sigma - torch.xlogy(sigma, sigma)


def _form(z: Tensor, vectors: Tensor, values: Tensor) -> Tensor:
    """zᵀ (Σ value · vector vectorᵀ) z of each row of z, (p,)."""
    return (z @ vectors).square() @ values


def _image(z: Tensor, ritz: Tensor, vectors: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
    """(Σ f(value) · vector vectorᵀ) z of each row of z, whose further coordinates count for nothing, (p, K)."""
    width = min(z.shape[1], vectors.shape[0])
    return (z[:, :width] @ vectors[:width] * function(ritz)) @ vectors.mT
