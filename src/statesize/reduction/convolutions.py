"""Reduction of convolutions, by balanced truncation or from the Hankel matrix of the middle position."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import functional

from statesize.errors import InputError
from statesize.operators import Convolution
from statesize.reduction.reduction import Method, Reduction, System, state_powers
from statesize.spectra.spectrum import ROUND_OFF

_linalg = cast("Any", torch.linalg)
# Relative threshold of the rank of H_{L/2}.
_RANK_TOLERANCE = 1e-12
# A realisation with at most this error, in units of σ_1 of H_{L/2}, counts as exact.
_EXACT = 1e-9


@dataclass(frozen=True, eq=False)
class BalancedKernel:
    """The shift register of a kernel in balanced coordinates, with states in the order of their singular values."""

    values: Tensor  # σ, descending, (E, N)
    vectors: Tensor  # eigenvectors Q in the same order, (E, N, N)
    signs: Tensor  # of the eigenvalues, (E, N)

    @classmethod
    def of(cls, kernel: Tensor) -> BalancedKernel:
        """Balance kernels k_1 … k_N, (E, N) float64."""
        taps = kernel.shape[-1]
        hankel = functional.pad(kernel, (0, taps)).unfold(-1, taps, 1)[..., :taps, :]
        eigenvalues, vectors = _linalg.eigh(hankel)
        values, order = eigenvalues.abs().sort(-1, descending=True)
        return cls(values, vectors.gather(-1, order[:, None].expand_as(vectors)), eigenvalues.gather(-1, order).sign())

    def bounds(self) -> Tensor:
        """2 Σ dropped σ, each of which round-off may change, for r = 0 … N states, (E, N + 1), descending."""
        values = functional.pad(self.values, (0, 1))
        tail, count = values.flip(-1).cumsum(-1).flip(-1), self.values.shape[-1]
        return 2 * (tail + count * ROUND_OFF * torch.finfo(tail.dtype).eps * values[:, :1])

    def truncated(self, states: int) -> System:
        """The first r ≤ N states; states with σ = 0 are idle."""
        Q, sigma = self.vectors[..., :states], self.values[:, :states]
        active = sigma > 0
        root = torch.where(active, sigma, torch.ones_like(sigma)).sqrt()
        A = (Q[:, :-1].mT @ Q[:, 1:]) * root[:, None] / root[..., None]
        first = torch.where(active, Q[:, :1].squeeze(1), 0)
        return System(A, first * root * self.signs[:, :states], first * root)


@dataclass(frozen=True, eq=False)
class MiddleHankel:
    """The singular value decomposition of H_{L/2} of kernels, for the method of Ho and Kalman."""

    kernel: Tensor  # k_1 … k_M, (E, M) float64
    values: Tensor  # σ of H_{L/2}, descending, (E, min(rows, columns))
    vectors: Tensor  # left singular vectors, (E, rows, min(rows, columns))

    @classmethod
    def of(cls, kernel: Tensor) -> MiddleHankel:
        """Decompose the middle position of L = M + 1 for kernels k_1 … k_M, (E, M) float64, M ≥ 1."""
        columns = (kernel.shape[-1] + 1) // 2
        U, sigma, _ = _linalg.svd(kernel.unfold(-1, columns, 1), full_matrices=False)
        return cls(kernel, sigma, U)

    @property
    def ranks(self) -> Tensor:
        """Rank up to round-off, (E,) int64."""
        return (self.values > _RANK_TOLERANCE * self.values[:, :1]).sum(-1)

    @property
    def most_states(self) -> int:
        """The largest number of states that its shift determines."""
        return min(self.values.shape[-1], self.vectors.shape[-2] - 1)

    def realised(self, states: int) -> System:
        """The r ≤ `most_states` states of the largest singular values; states above the rank are idle."""
        # A shifts the rows of U by one, by least squares; B is the least-squares fit to all taps. The error is computed
        # by `System.distance`.
        active = torch.arange(states, device=self.values.device) < self.ranks[:, None]
        U = self.vectors[..., :states] * active[:, None]
        A, C = _linalg.pinv(U[:, :-1]) @ U[:, 1:], U[:, 0]
        # Balance the states: equal reachability and observability.
        root = torch.where(active, self.values[:, :states], 1).sqrt()
        A, C = A * root[:, None] / root[..., None], C * root
        rows = state_powers(A.mT, C, self.kernel.shape[-1])
        finite = torch.isfinite(rows).flatten(1).all(-1)[:, None, None]
        B = _linalg.pinv(torch.where(finite, rows, 0)) @ self.kernel[..., None]
        return System(A, B.squeeze(-1), C)


@torch.no_grad()
def reduce_convolution(operator: Convolution, state_size: int | None, tolerance: float | None) -> Reduction:
    """The nearer realisation of a size, or the smallest within a tolerance, or the exact one."""
    kernels = _Kernels.of(operator)
    if not kernels.taps:
        return kernels.without_memory()
    if state_size is not None:
        return kernels.nearest(state_size)
    return kernels.exact() if tolerance is None else kernels.smallest(tolerance)


@dataclass(frozen=True, eq=False)
class _Kernels:
    """The kernels of an operator, with the decompositions of both methods."""

    operator: Convolution
    lags: Tensor  # k_1 … k_{L−1}, (E, L − 1) float64
    taps: int  # N, the last lag that is not 0 in all kernels, or 0

    @classmethod
    def of(cls, operator: Convolution) -> _Kernels:
        stored = operator.kernel[..., 1 : operator.length].double()
        lags = functional.pad(stored, (0, operator.length - 1 - stored.shape[-1]))
        lags = lags.reshape(operator.batch_shape.numel(), operator.length - 1)
        used = (lags != 0).any(0).nonzero()
        return cls(operator, lags, int(used.max()) + 1 if used.numel() else 0)

    @cached_property
    def middle(self) -> MiddleHankel:
        # With as many zeros behind the last tap as taps, a longer sequence adds nothing.
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
        ho_kalman = self._by_ho_kalman(min(states, self._most_states))
        balanced = self._by_balancing(min(states, self.taps))
        return ho_kalman if bool(ho_kalman.bound.amax() <= balanced.bound.amax()) else balanced

    def smallest(self, tolerance: float) -> Reduction:
        bounds = self.balanced.bounds()
        sufficient = (bounds <= tolerance).all(0).nonzero()
        if not sufficient.numel():
            raise InputError(
                f"tolerance must be at least {float(bounds.amin(-1).amax()):.2g}, the round-off of these kernels, got "
                f"{tolerance:g}. Give no tolerance for the exact recurrence."
            )
        states = int(sufficient[0])
        return self._fewest(min(states - 1, self._most_states), tolerance) or self._by_balancing(states)

    def _fewest(self, most: int, tolerance: float) -> Reduction | None:
        """The smallest within the tolerance by Ho and Kalman: doubling steps, then bisection, as each try is costly."""
        # Every recurrence nearer than σ_{r+1} of H_{L/2} has more than r states.
        too_few, step = int((self.middle.values > tolerance).sum(-1).amax()) - 1, 1
        best = None
        while best is None and too_few < most:
            states = min(too_few + step, most)
            best = self._within(states, tolerance)
            too_few, step = too_few if best else states, 2 * step
        while best is not None and best.state_size - too_few > 1:
            states = (best.state_size + too_few) // 2
            smaller = self._within(states, tolerance)
            best, too_few = smaller or best, too_few if smaller else states
        return best

    def _within(self, states: int, tolerance: float) -> Reduction | None:
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
