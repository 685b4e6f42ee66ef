"""The entropy-ESS of a matrix known by its products, as accurately as requested or as products suffice."""

from __future__ import annotations

import math
from typing import Any, cast

import torch
from torch import Tensor

from statesize.spectra.implicit.entropy_interval import (
    FEW,
    EntropyInterval,
    FixedPart,
    Probes,
    entropy_interval,
    exact_interval,
)
from statesize.spectra.implicit.krylov_space import KrylovSpace

_linalg = cast("Any", torch.linalg)
# By what factor probes may become more at once.
_MORE = 2
# The share of the accuracy that the spread over probes may take, and the one that it is made to take.
_SAMPLING, _AIM = 0.6, 0.5
# Products of a probe before it is judged, and by how much the space grows from one judgement to the next.
_STEPS, _GROWTH, _LEAST_GROWTH = 3, 1.15, 1.02
# From this share of the variance on that the space explains, new probes are worth more than further ones.
_RESOLVED = 0.2
# A space that products do not lead out of holds all of A, unless a singular value repeats more often than there are
# probes: new ones show it, and leave no spread.
_EXACT = 1e-6


class EntropyEstimate:
    """An interval that becomes narrower with each product of A = HᵀH (n, n) with the vectors `pending`.

    Attributes:
        interval: The interval at the last judgement, as are the next three.
        space: What was known of A on the subspace.
        probes: The vectors by which it was judged.
        steps: With how many powers of A, at least, the space held each of them.
        capacity: How many vectors the space may hold.
        finished: Whether no product is wanted any more.
    """

    def __init__(
        self, dimension: int, accuracy: float, capacity: int, probes: int = 8, seed: int = 0, lost: float = 0.0
    ) -> None:
        # `lost` is how far the H of the products may be from the wanted H, in the Frobenius norm.
        self._accuracy, self._dimension, self._count = accuracy, dimension, min(probes, dimension)
        self._generator = torch.Generator().manual_seed(seed)
        self.capacity = min(dimension, max(capacity, 2 * self._count))
        self._space = KrylovSpace(dimension, self.capacity, lost)
        self._frame = torch.zeros(0, dimension, dtype=torch.float64)
        self.interval = EntropyInterval(1.0, float(dimension))
        self.space = self._space.compression()
        self.finished, self._steps = False, 0
        self._draw(FixedPart(self._frame.new_zeros(0), self._frame.new_zeros(0, 0)))
        self.probes, self.steps = self._probes, 0

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
        return self.space.ritz.shape[0] == self._dimension

    @property
    def converged(self) -> bool:
        """Whether the interval is as close as requested."""
        return self.interval.accuracy <= self._accuracy

    def squared_norms(self) -> Tensor:
        """‖H‖_F² as each probe estimates it, (p,)."""
        return self.probes.traces(self.space, torch.square)[1]

    def advance(self, product: Tensor) -> None:
        """Take A times the pending vectors, (k, n)."""
        self._space.extend(product)
        self._steps += 1
        exhausted = not self.pending.shape[0]
        if (
            exhausted
            or not self._space.has_room(self.pending.shape[0])
            or (self._steps >= _STEPS and self._space.size >= self._next)
        ):
            self._judge(exhausted)
        if self.finished:
            self._space.release()

    def _judge(self, exhausted: bool) -> None:
        self.space, self.probes, self.steps = self._space.compression(), self._probes, self._steps
        if self._space.size == self._dimension:
            self.interval, self.finished = exact_interval(self.space), True
            return
        self.interval = entropy_interval(self.space, self.probes)
        # The width falls about as one over the products.
        growth = min(_GROWTH, max(_LEAST_GROWTH, self.interval.accuracy / self._accuracy))
        self._next = math.ceil(growth * self._space.size)
        p = self.probes.coordinates.shape[0]
        if self.converged and not (exhausted and self.interval.sampling > _EXACT):
            self.finished = True
        elif exhausted or self.interval.sampling > _SAMPLING * self._accuracy:
            spread_counts = self.interval.accuracy < 3 * self.interval.sampling
            # A new probe instead of one or two begins with no power of A.
            if exhausted or (self.interval.resolved >= _RESOLVED and (spread_counts or p >= FEW)):
                self._draw(FixedPart(self.space.ritz, self.space.ritz_vectors))
            elif spread_counts:
                wanted = math.ceil(p * min(_MORE, (self.interval.sampling / (_AIM * self._accuracy)) ** 2))
                self._draw(self.probes.fixed, min(wanted, self._dimension) - p)
        self.finished |= not self.pending.shape[0] or not self._space.has_room(self.pending.shape[0])

    def _draw(self, fixed: FixedPart, more: int = 0) -> None:
        """New probes where an operator is known by now, or so many more of them."""
        frame, count = (self._frame, more) if more else (self._frame[:0], self._count)
        # Without room for as many steps as those before took, further steps are worth more.
        if not self._space.has_room(max(1, self._steps) * (count + (self.pending.shape[0] if more else 0))):
            return
        drawn = torch.randn(count, self._dimension, generator=self._generator, dtype=torch.float64)
        for _ in range(2):
            drawn = drawn - drawn @ frame.mT @ frame
            drawn = _linalg.qr(drawn.mT).Q.mT
        self._frame = torch.cat([frame, drawn])
        added = self._space.add(drawn, instead=not more)
        if more:
            before = self._probes.coordinates
            before = torch.nn.functional.pad(before, (0, added.shape[1] - before.shape[1]))
            added = torch.cat([before, added])
        self._probes = Probes(self._dimension, added, fixed)
        self._steps, self._next = 0, 0
