"""A matrix that is known by its products with blocks of vectors."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor


class LinearMap(ABC):
    """H, rows × columns, real, in float64.

    Attributes:
        rows: Rows of H.
        columns: Columns of H.
    """

    rows: int
    columns: int

    @abstractmethod
    def forward(self, vectors: Tensor) -> Tensor:
        """H x of vectors in rows, (k, columns) to (k, rows)."""

    @abstractmethod
    def adjoint(self, vectors: Tensor) -> Tensor:
        """Hᵀ y of vectors in rows, (k, rows) to (k, columns)."""

    @property
    def dimension(self) -> int:
        """The smaller side, which no rank can pass."""
        return min(self.rows, self.columns)

    def gram(self, vectors: Tensor) -> Tensor:
        """HᵀH x, or H Hᵀ x where H has fewer rows, of vectors in rows, (k, dimension) to (k, dimension)."""
        if self.rows < self.columns:
            return self.forward(self.adjoint(vectors))
        return self.adjoint(self.forward(vectors))
