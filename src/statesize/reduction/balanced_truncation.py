"""Balanced truncation of a finite kernel, with the bound that comes with it.

A kernel that ends after k_N has the Hankel matrix Γ of k_{1+r+c}, which is 0 where 1 + r + c > N. Γ is symmetric,
Γ = Q Λ Qᵀ, so σ = |λ|, and with Q↓ and Q↑ the rows of Q without the last and without the first

    A = Σ^{−1/2} Q↓ᵀ Q↑ Σ^{1/2},    B = Σ^{−1/2} Λ q,    C = q Σ^{1/2},    q the first row of Q.

The first r states alone have ‖G − G_r‖_∞ ≤ 2 Σ_{m>r} σ_m: in the ℓ²-induced norm, for inputs of any length (Enns, 1984;
Glover, 1984; in discrete time Al-Saggaf and Franklin, 1987). That needs Γ whole: truncations of a part such as H_i obey
no such bound.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import functional

from statesize.reduction.system import System

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
