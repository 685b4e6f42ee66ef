"""The entropy-ESS of a matrix known by its products: an interval from random vectors and the subspace that they span.

Each of p random vectors z estimates tr f(A) by n zᵀ f(A) z, which the subspace bounds from below and from above. What
was known of A before the vectors were drawn is taken out, so that little is left to chance
(docs/appendix/engine-mathematics.md, "Matrices known by their products").
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from statesize.check import require_finite
from statesize.spectra.implicit.krylov_space import KrylovSpace, ProjectedGram
from statesize.spectra.spectrum import effective_rank

CONFIDENCE = 0.95
"""How often an interval holds the true value."""
# Steps before the first judgement, and by how much the space grows from one judgement to the next.
_STEPS, _GROWTH, _LEAST_GROWTH = 3, 1.2, 1.02
# The share of the accuracy from which on the spread over probes is what to make less; relative to the entropy, none.
_SAMPLING, _EXACT = 0.6, 1e-6
# Nodes of the integral of arctan(u)/u from 0 to 1. The integrand has its nearest poles at ±i, so that 20 nodes give all
# digits.
_NODES, _WEIGHTS = (torch.from_numpy(part) for part in np.polynomial.legendre.leggauss(20))


@dataclass(frozen=True)
class EntropyInterval:
    """Between which numbers an entropy-ESS lies, with the probability CONFIDENCE."""

    low: float
    high: float
    sampling: float = 0.0  # what the spread over probes makes of half the interval, relative to the entropy-ESS

    @property
    def middle(self) -> float:
        """The estimate."""
        return (self.low + self.high) / 2

    @property
    def accuracy(self) -> float:
        """Half of the interval relative to its middle."""
        return (self.high - self.low) / (2 * self.middle) if self.middle else 0.0


@dataclass(frozen=True, eq=False)
class Traces:
    """Estimates of Σ f(σ), f(σ²) operator monotone: to F, known before the probes, each adds n zᵀ (f(A) − f(F)) z."""

    dimension: int
    space: ProjectedGram
    before: ProjectedGram  # F, on a part of the space
    probes: Tensor  # coordinates in the space, (p, ≤ K)

    def _weights(self, vectors: Tensor) -> Tensor:
        """The weights n (zᵀ v)² of vectors v by their coordinates in the space, (K, r), for each probe, (p, r)."""
        width = min(self.probes.shape[1], len(vectors))
        return self.dimension * (self.probes[:, :width] @ vectors[:width]).square()

    def bounds(self, function: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
        """Estimates from below and from above, (p,) each."""
        known = (1 - self._weights(self.before.ritz_vectors)) @ function(self.before.ritz)
        sides = (self.space.nystrom_vectors, self.space.nystrom), (self.space.ritz_vectors, self.space.ritz)
        return cast("tuple[Tensor, Tensor]", tuple(known + self._weights(V) @ function(sigma) for V, sigma in sides))

    def explained(self, function: Callable[[Tensor], Tensor], total: float) -> float:
        """The standard deviation of n zᵀ (f(A) − f(F)) z over z, as far as the space tells it, for a trace of f(A)."""
        found, fixed, n = function(self.space.ritz), function(self.before.ritz), self.dimension
        shared = self.space.ritz_vectors[: len(fixed)].mT @ self.before.ritz_vectors
        energy = float(found @ found + fixed @ fixed - 2 * (found @ shared.square() @ fixed))
        # What is left of the trace is spread evenly.
        trace, rest = total - float(fixed.sum()), total - float(found.sum())
        energy += rest**2 / max(1, n - len(found)) - trace**2 / n
        return math.sqrt(max(0.0, 2 * n / (n + 2) * energy))

    def margin(self, estimates: Tensor, least: float = 0.0) -> float:
        """How far the mean of estimates (p,), of a spread of at least that, may be off at each end of an interval."""
        p = len(estimates)
        if p == self.dimension:
            return 0.0
        # Vectors of a random frame leave less to chance than independent ones, by the share of n that they are.
        error = math.sqrt((1 - p / self.dimension) / p) * max(float(estimates.std()), least)
        # By Student's t. Importing it takes time.
        return float(cast("Any", import_module("scipy.special")).stdtrit(p - 1, (1 + CONFIDENCE) / 2)) * error

    def interval(self) -> EntropyInterval:
        """That of the entropy-ESS."""
        sums, logarithms = self.bounds(torch.abs), self.bounds(lambda sigma: torch.xlogy(sigma, sigma))
        certain = float(self.space.nystrom.sum())
        if not certain > 0:
            return EntropyInterval(0.0, 0.0)
        # H = ln S − c + L / S with S = Σσ and L = Σσ (c − ln σ) for any c; for this one it changes with L alone, to
        # first order, and for one L it is least where S = L.
        total = float(sums[0].mean() + sums[1].mean()) / 2
        c = 1 + float(logarithms[0].mean() + logarithms[1].mean()) / 2 / total
        growing, falling = (self.bounds(lambda sigma, part=part: entropy_parts(sigma, c)[part]) for part in (0, 1))
        changes = growing[0] - falling[1], growing[1] - falling[0]
        middle = float(changes[0].mean() + changes[1].mean()) / 2
        spread = self.explained(lambda sigma: c * sigma - torch.xlogy(sigma, sigma), middle)
        (S_low, S_high), (L_low, L_high) = (
            (float(low.mean()) - self.margin(low, least), float(high.mean()) + self.margin(high, least))
            for (low, high), least in ((sums, 0.0), (changes, spread))
        )
        S_low = max(S_low, certain)
        S_high, error, n = max(S_high, S_low), round_off(self.space, self.dimension), math.log(self.dimension)
        least, most = (math.log(S) - c + L / S for S, L in ((min(max(L_low, S_low), S_high), L_low), (S_high, L_high)))
        most = max(most, math.log(S_low) - c + L_high / S_low)
        low, high = (math.exp(min(max(H, 0.0), n)) for H in (least - error, most + error))
        return EntropyInterval(low, high, max(self.margin(change, spread) for change in changes) / max(total, certain))


class EntropyEstimate:
    """An interval that becomes narrower with each product of A = HᵀH (n, n) with the vectors `pending`.

    Attributes:
        interval: The interval at the last judgement.
        space: What was known of A on the subspace then.
        traces: What each probe estimated by it.
        capacity: How many vectors the space may hold.
        finished: Whether no product is wanted any more.
    """

    def __init__(self, dimension: int, accuracy: float, capacity: int, probes: int = 8, seed: int = 0) -> None:
        self._accuracy, self._dimension, self._count = accuracy, dimension, min(probes, dimension)
        self.capacity = min(dimension, max(capacity, 2 * self._count))
        self._generator = torch.Generator().manual_seed(seed)
        self._space = KrylovSpace(dimension, self.capacity)
        self.space, self.interval, self.finished = self._space.compression(), EntropyInterval(1.0, dimension), False
        self._draw()

    @property
    def pending(self) -> Tensor:
        """The vectors whose products are wanted next, (k, n)."""
        return self._space.pending

    @property
    def products(self) -> int:
        """How many vectors A was multiplied with."""
        return self._space.size

    @property
    def exact(self) -> bool:
        """Whether the space is the whole, so that all singular values are known."""
        return self._space.size == self._dimension

    @property
    def converged(self) -> bool:
        """Whether the interval is as close as requested."""
        return self.interval.accuracy <= self._accuracy

    def squared_norms(self) -> Tensor:
        """‖H‖_F² as each probe estimates it, (p,)."""
        return self.traces.bounds(torch.square)[1]

    def advance(self, product: Tensor) -> None:
        """Take A times the pending vectors, (k, n)."""
        require_finite("T", product)
        self._space.extend(product)
        self._steps += 1
        k = len(self.pending)
        ended = not (k and self._space.has_room(1, k))
        if not ended and (self._steps < _STEPS or self._space.size < self._next):
            return
        self.space = self._space.compression()
        if self.exact:
            n, entropy = self._dimension, float(effective_rank(self.space.ritz))
            low, high = (entropy * math.exp(sign * round_off(self.space, n)) for sign in (-1, 1))
            self.interval, self.finished = EntropyInterval(min(entropy, max(1.0, low)), min(n, high)), True
        else:
            self.traces = Traces(self._dimension, self.space, self._before, self._probes)
            self.interval = self.traces.interval()
            # The width falls about as one over the products.
            self._next = self._space.size * min(_GROWTH, max(_LEAST_GROWTH, self.interval.accuracy / self._accuracy))
            spread = self.interval.sampling
            # Where products lead no further, a repeated value may have parts that no probe shows yet.
            hidden = not k and spread > _EXACT
            large = spread > _SAMPLING * self._accuracy and self._space.size >= 2 * self._known
            drawn = (hidden or (large and not self.converged)) and self._draw()
            self.finished = not drawn and (ended or self.converged)
        if self.finished:
            self._space.release()

    def _draw(self) -> bool:
        """Draw probes anew, which what is known of A by now leaves less to, where there is room for as many steps."""
        size = self._space.size
        if size and not self._space.has_room(self._steps, self._count):
            return False
        drawn = torch.randn(self._dimension, self._count, generator=self._generator, dtype=torch.float64)
        self._before, self._probes = self.space, self._space.begin(cast("Any", torch.linalg).qr(drawn).Q.mT)
        self._steps, self._next, self._known = 0, 0.0, size
        return True


def round_off(space: ProjectedGram, dimension: int) -> float:
    """How far round-off in n values σ moves their entropy; as `entropy_bound`, where Σσ is about that known."""
    total = float(space.nystrom.sum())
    share = min(1.0, dimension * space.error_bound / total) if total else 0.0
    if not 0 < share < 1:
        return 0.0
    return share * math.log(dimension) - share * math.log(share) - (1 - share) * math.log1p(-share)


def entropy_parts(sigma: Tensor, c: float) -> tuple[Tensor, Tensor]:
    """B and D of σ ≥ 0, (...) each, operator monotone in σ²: σ (c − ln σ) = B − D."""
    y = sigma * math.exp(-c)
    ratio = torch.minimum(y, 1 / y.clamp(min=1))
    nodes, weights = (_NODES.to(y) + 1) / 2, _WEIGHTS.to(y) / 2
    both = 2 / math.pi * y * ((torch.atan(ratio[..., None] * nodes) / nodes) @ weights)
    product = torch.xlogy(y, y)
    return math.exp(c) * ((-product).clamp(min=0) + both), math.exp(c) * (product.clamp(min=0) + both)
