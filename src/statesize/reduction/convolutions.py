"""Which states of a convolution to keep: by balanced truncation, or from the Hankel matrix of its middle position."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import functional

from statesize.errors import InputError
from statesize.operators import Convolution
from statesize.reduction.reduction import Method, Reduction, System, carried

_linalg = cast("Any", torch.linalg)
# What round-off may add to the bound, in units of N σ_1 eps.
_ROUND_OFF = 16


@dataclass(frozen=True, eq=False)
class BalancedKernel:
    """The shift register of a kernel in balanced coordinates: the states in the order of what they pass on."""

    # values: σ, descending, (E, N); vectors: Q in their order, (E, N, N); signs: those of λ, (E, N).

    values: Tensor
    vectors: Tensor
    signs: Tensor

    @classmethod
    def of(cls, kernel: Tensor) -> BalancedKernel:
        """Balances kernels k_1 … k_N, (E, N) float64."""
        taps = kernel.shape[-1]
        hankel = functional.pad(kernel, (0, taps)).unfold(-1, taps, 1)[..., :taps, :]
        eigenvalues, vectors = _linalg.eigh(hankel)
        values, order = eigenvalues.abs().sort(-1, descending=True)
        return cls(values, vectors.gather(-1, order[:, None].expand_as(vectors)), eigenvalues.gather(-1, order).sign())

    def bounds(self) -> Tensor:
        """2 Σ dropped σ, and what round-off may add, for r = 0 … N states, (E, N + 1), descending."""
        tail = functional.pad(self.values, (0, 1)).flip(-1).cumsum(-1).flip(-1)
        count = self.values.shape[-1]
        slack = _ROUND_OFF * count * torch.finfo(tail.dtype).eps * functional.pad(self.values, (0, 1))[:, :1]
        return 2 * tail + slack

    def truncated(self, states: int) -> System:
        """The first r ≤ N states alone; those whose σ is 0 are idle."""
        Q, sigma = self.vectors[..., :states], self.values[:, :states]
        alive = sigma > 0
        root = torch.where(alive, sigma, torch.ones_like(sigma)).sqrt()
        A = (Q[:, :-1].mT @ Q[:, 1:]) * root[:, None] / root[..., None]
        first = torch.where(alive, Q[:, :1].squeeze(1), 0)
        return System(A, first * root * self.signs[:, :states], first * root)


_linalg_ho_kalman = cast("Any", torch.linalg)
# Singular values up to this share of the largest are round-off.
_ROUND_OFF_ho_kalman = 1e-12


@dataclass(frozen=True, eq=False)
class MiddleHankel:
    """H_{L/2} of kernels, decomposed."""

    # kernel: k_1 … k_M, (E, M) float64; values: σ of H_{L/2}, descending, (E, min(rows, columns)); vectors: left
    # singular vectors, (E, rows, min(rows, columns)).

    kernel: Tensor
    values: Tensor
    vectors: Tensor

    @classmethod
    def of(cls, kernel: Tensor) -> MiddleHankel:
        """Decomposes the middle position of L = M + 1 for kernels k_1 … k_M, (E, M) float64, M ≥ 1."""
        columns = (kernel.shape[-1] + 1) // 2
        U, sigma, _ = _linalg_ho_kalman.svd(kernel.unfold(-1, columns, 1), full_matrices=False)
        return cls(kernel, sigma, U)

    @property
    def ranks(self) -> Tensor:
        """Rank up to round-off, (E,) int64."""
        return (self.values > _ROUND_OFF_ho_kalman * self.values[:, :1]).sum(-1)

    @property
    def most_states(self) -> int:
        """How many states its shift can tell."""
        return min(self.values.shape[-1], self.vectors.shape[-2] - 1)

    def realised(self, states: int) -> System:
        """The r ≤ `most_states` states of the largest singular values; lower ranks leave the others idle."""
        # A is what shifts the rows of U by one, by least squares; B is the least-squares fit to all taps. How near the
        # system is, is for `System.distance` to say.
        alive = torch.arange(states, device=self.values.device) < self.ranks[:, None]
        U = self.vectors[..., :states] * alive[:, None]
        A, C = _linalg_ho_kalman.pinv(U[:, :-1]) @ U[:, 1:], U[:, 0]
        # Balanced: each state as strong before as behind.
        root = torch.where(alive, self.values[:, :states], 1).sqrt()
        A, C = A * root[:, None] / root[..., None], C * root
        rows = carried(A.mT, C, self.kernel.shape[-1])
        finite = torch.isfinite(rows).flatten(1).all(-1)[:, None, None]
        B = _linalg_ho_kalman.pinv(torch.where(finite, rows, 0)) @ self.kernel[..., None]
        return System(A, B.squeeze(-1), C)


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
