"""Time-invariant recurrences: the states that make a kernel."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from statesize.spectra.circulant import circulant_norm


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

        Their difference is a part of a circulant matrix of any order N ≥ 2 L, whose norm is max |DFT_N|. L − 1 rounded
        steps are added to it.

        Args:
            kernel: k_1 … k_{L−1}, (..., L − 1).

        Returns:
            An upper bound on ‖T − T_r‖₂, (...); infinite where powers of A overflow.
        """
        lags = kernel.shape[-1]
        taps = self.taps(lags)
        finite = torch.isfinite(taps).all(-1, keepdim=True)
        taps = functional.pad(torch.stack([torch.where(finite, taps, 0), kernel]), (0, lags + 1))
        bound = circulant_norm(taps[0] - taps[1]) + lags * torch.finfo(taps.dtype).eps * circulant_norm(taps[1])
        return torch.where(finite[..., 0], bound, torch.inf)


def observed(A: Tensor, C: Tensor, count: int) -> Tensor:
    """C Aᵗ for t < count, by squaring A.

    Args:
        A: (..., r, r).
        C: (..., r).
        count: How many.

    Returns:
        (..., count, r).
    """
    rows, power = C[..., None, :], A
    while rows.shape[-2] < count:
        rows = torch.cat([rows, rows @ power], -2)
        if rows.shape[-2] < count:
            power = power @ power
    return rows[..., :count, :]
