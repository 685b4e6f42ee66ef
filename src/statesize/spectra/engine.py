"""What an engine makes of an operator: its H_i, ready to be asked for counts, entropies or singular values."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, eq=False)
class Counts:
    """How many singular values exceed a threshold.

    Attributes:
        count: (..., P, K) int64.
        lower: The smallest number that the error bound allows, (..., P, K).
        upper: The largest, (..., P, K).
    """

    count: Tensor
    lower: Tensor
    upper: Tensor


class HankelBlocks(ABC):
    """The blocks H_i of an operator at the P positions of a cut, as an engine holds them."""

    error_bound: Tensor

    @property
    def way(self) -> str:
        """Which ways an engine that has several took, up to now."""
        return ""

    @abstractmethod
    def norms(self) -> Tensor:
        """‖H_i‖_F, (..., P)."""

    @abstractmethod
    def counts(self, thresholds: Tensor) -> Counts:
        """#{σ > τ} for absolute thresholds (K,)."""

    @abstractmethod
    def relative_counts(self, ratios: Tensor, accuracy: float = 0.0) -> Counts:
        """#{σ > ρ σ_1} for ratios (R,)."""

    @abstractmethod
    def entropies(self, accuracy: float) -> tuple[Tensor, Tensor]:
        """Entropy-ESS to a relative accuracy and a bound on its error, both (..., P)."""

    @abstractmethod
    def singular_values(self) -> Tensor:
        """σ̂, (..., P, r), descending, zero-padded; only of engines that give values."""
