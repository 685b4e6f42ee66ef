"""Time-invariant recurrences: the states that make a kernel."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from statesize.spectra.convolution.blocks import circulant_norm


@dataclass(frozen=True, eq=False)
class System:
    """x_{t+1} = A x_t + B u_t, y_t = C x_t, so that k_{1+n} = C Aⁿ B.

    Attributes:
        A: (..., r, r).
        B: (..., r).
        C: (..., r).
    """

    A: Tensor
    B: Tensor
    C: Tensor

    def taps(self, count: int) -> Tensor:
        """k_1 … k_count.

        Args:
            count: How many.

        Returns:
            (..., count); differentiable.
        """
        return (observed(self.A, self.C, count) @ self.B[..., None]).squeeze(-1)

    def distance(self, kernel: Tensor) -> Tensor:
        """How far the operator of this system can be from that of a kernel, in the ℓ²-induced norm.

        Their difference is a part of a circulant matrix of any order N ≥ 2 L, whose norm is max |DFT_N|. A step x_{t+1}
        = A x_t + B u_t is off by at most γ (|A| |x_t| + |B| |u_t|) entry by entry, of which C Aˢ is seen s steps later.
        That is added, once for the taps that are computed here and once for whoever takes the steps.

        Args:
            kernel: k_1 … k_{L−1}, (..., L − 1).

        Returns:
            An upper bound on ‖T − T_r‖₂, (...); infinite where powers of A overflow.
        """
        lags = kernel.shape[-1]
        states, rows = carried(self.A, self.B, lags), carried(self.A.mT, self.C, lags)
        finite = (torch.isfinite(states) & torch.isfinite(rows)).all(-1).all(-1)
        states, rows = (torch.where(finite[..., None, None], part, 0) for part in (states, rows))
        taps = (states @ self.C[..., None]).squeeze(-1)
        bound = circulant_norm(functional.pad(taps - kernel, (0, lags + 1)))
        made = torch.cat([self.B[..., None, :].abs(), states[..., :-1, :].abs() @ self.A.mT.abs()], -2)
        seen = rows.abs().cumsum(-2).flip(-2)
        off = (made * seen).sum((-2, -1)) + (states.abs() @ self.C[..., None].abs()).sum((-2, -1))
        gamma = (self.B.shape[-1] + 2) * torch.finfo(taps.dtype).eps
        return torch.where(finite, bound + gamma * off, torch.inf)


def carried(A: Tensor, x: Tensor, count: int) -> Tensor:
    """Aᵗ x for t < count, step by step, (..., count, r): more accurate than `observed` where A has large entries."""
    states = [x]
    for _ in range(count - 1):
        states.append((A @ states[-1][..., None]).squeeze(-1))
    return torch.stack(states, -2)


def observed(A: Tensor, C: Tensor, count: int) -> Tensor:
    """C Aᵗ for t < count, by squaring A, (..., count, r)."""
    rows, power = C[..., None, :], A
    while rows.shape[-2] < count:
        rows = torch.cat([rows, rows @ power], -2)
        if rows.shape[-2] < count:
            power = power @ power
    return rows[..., :count, :]
