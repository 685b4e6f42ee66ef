"""The states of a kernel from the Hankel matrix of its middle position (Ho and Kalman, 1966; Kung, 1978).

All taps are in H_{L/2}, k_{1+r+c}. If its rank r is smaller than its number of rows and the shift of its range agrees
with that, r states make the kernel, and no recurrence with fewer can, because what any recurrence carries at a position
is at least the rank of H there: the effective state-size is the smallest state.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

from statesize.reduction.system import System, carried

_linalg = cast("Any", torch.linalg)
# Singular values up to this share of the largest are round-off.
_ROUND_OFF = 1e-12


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
        U, sigma, _ = _linalg.svd(kernel.unfold(-1, columns, 1), full_matrices=False)
        return cls(kernel, sigma, U)

    @property
    def ranks(self) -> Tensor:
        """Rank up to round-off, (E,) int64."""
        return (self.values > _ROUND_OFF * self.values[:, :1]).sum(-1)

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
        A, C = _linalg.pinv(U[:, :-1]) @ U[:, 1:], U[:, 0]
        # Balanced: each state as strong before as behind.
        root = torch.where(alive, self.values[:, :states], 1).sqrt()
        A, C = A * root[:, None] / root[..., None], C * root
        rows = carried(A.mT, C, self.kernel.shape[-1])
        finite = torch.isfinite(rows).flatten(1).all(-1)[:, None, None]
        B = _linalg.pinv(torch.where(finite, rows, 0)) @ self.kernel[..., None]
        return System(A, B.squeeze(-1), C)
