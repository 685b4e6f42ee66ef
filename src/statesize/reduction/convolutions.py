"""Which states of a convolution to keep, and by which of two ways."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.nn import functional

from statesize.errors import InputError
from statesize.operators import Convolution
from statesize.reduction.balanced_truncation import BalancedKernel
from statesize.reduction.ho_kalman import MiddleHankel
from statesize.reduction.reduction import Method, Reduction
from statesize.reduction.system import System

# Up to this error, in units of σ_1 of H_{L/2}, states count as exact.
_EXACT = 1e-9


@torch.no_grad()
def reduce_convolution(operator: Convolution, state_size: int | None, tolerance: float | None) -> Reduction:
    """The nearer of two realisations of a size, or the smaller of those that are near enough, or the exact one."""
    kernels = _Kernels.of(operator)
    if not kernels.taps:
        return kernels.without_memory()
    if state_size is not None:
        return kernels.nearest(state_size)
    return kernels.exact() if tolerance is None else kernels.smallest(tolerance)


@dataclass(frozen=True, eq=False)
class _Kernels:
    """Kernels of one operator, with what both ways decompose."""

    # lags: k_1 … k_{L−1}, (E, L − 1) float64; taps: N, the last lag that is not 0 in all of them, or 0.

    operator: Convolution
    lags: Tensor
    taps: int

    @classmethod
    def of(cls, operator: Convolution) -> _Kernels:
        given = operator.kernel[..., 1 : operator.length].double()
        lags = functional.pad(given, (0, operator.length - 1 - given.shape[-1]))
        lags = lags.reshape(operator.batch_shape.numel(), operator.length - 1)
        used = (lags != 0).any(0).nonzero()
        return cls(operator, lags, int(used.max()) + 1 if used.numel() else 0)

    @cached_property
    def middle(self) -> MiddleHankel:
        # Behind the last tap, as many zeros again tell all that a longer sequence would.
        return MiddleHankel.of(self.lags[:, : 2 * self.taps])

    @cached_property
    def balanced(self) -> BalancedKernel:
        return BalancedKernel.of(self.lags[:, : self.taps])

    def without_memory(self) -> Reduction:
        nothing = self.lags[:, :0]
        A = self.lags.new_zeros(len(self.lags), 0, 0)
        return self._reduction("ho_kalman", System(A, nothing, nothing), nothing, self.lags.sum(-1))

    def exact(self) -> Reduction:
        rank = int(self.middle.ranks.amax())
        if rank <= self.middle.most_states:
            candidate = self._by_ho_kalman(rank)
            if bool((candidate.bound.flatten() <= _EXACT * self.middle.values[:, 0]).all()):
                return candidate
        return self._by_balancing(self.taps)

    def nearest(self, states: int) -> Reduction:
        one = self._by_ho_kalman(min(states, self._most_states))
        other = self._by_balancing(min(states, self.taps))
        return one if bool(one.bound.amax() <= other.bound.amax()) else other

    def smallest(self, tolerance: float) -> Reduction:
        bounds = self.balanced.bounds()
        enough = (bounds <= tolerance).all(0).nonzero()
        if not enough.numel():
            raise InputError(
                f"tolerance must be at least {float(bounds.amin(-1).amax()):.2g}, the round-off of these kernels, got "
                f"{tolerance:g}. Give no tolerance for the exact recurrence."
            )
        states = int(enough[0])
        return self._fewest(min(states - 1, self._most_states), tolerance) or self._by_balancing(states)

    def _fewest(self, most: int, tolerance: float) -> Reduction | None:
        """By Ho and Kalman, in growing steps and back: each try costs a decomposition."""
        # What comes nearer than σ_{r+1} of H_{L/2} has more than r states, whichever way it is made.
        missed, step = int((self.middle.values > tolerance).sum(-1).amax()) - 1, 1
        candidate = None
        while candidate is None and missed < most:
            tried = min(missed + step, most)
            candidate = self._near(tried, tolerance)
            missed, step = missed if candidate else tried, 2 * step
        while candidate is not None and candidate.state_size - missed > 1:
            tried = (candidate.state_size + missed) // 2
            nearer = self._near(tried, tolerance)
            candidate, missed = nearer or candidate, missed if nearer else tried
        return candidate

    def _near(self, states: int, tolerance: float) -> Reduction | None:
        candidate = self._by_ho_kalman(states)
        return candidate if bool((candidate.bound <= tolerance).all()) else None

    @property
    def _most_states(self) -> int:
        return min(int(self.middle.ranks.amax()), self.middle.most_states)

    def _by_ho_kalman(self, states: int) -> Reduction:
        system = self.middle.realised(states)
        return self._reduction("ho_kalman", system, self.middle.values, system.distance(self.lags))

    def _by_balancing(self, states: int) -> Reduction:
        system = self.balanced.truncated(states)
        bound = torch.minimum(self.balanced.bounds()[:, states], system.distance(self.lags))
        return self._reduction("balanced", system, self.balanced.values, bound)

    def _reduction(self, method: Method, system: System, values: Tensor, bound: Tensor) -> Reduction:
        def shaped(part: Tensor) -> Tensor:
            return part.reshape(self.operator.batch_shape + part.shape[1:])

        feed = self.operator.kernel[..., 0].double()
        system = System(shaped(system.A), shaped(system.B), shaped(system.C))
        return Reduction(system, feed, self.operator.length, method, shaped(values), shaped(bound))
