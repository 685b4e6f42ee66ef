"""A growing subspace with what a symmetric A ≥ 0 is on it, from products with A alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

_linalg = cast("Any", torch.linalg)
_ROUND_OFF = 1e-7
# Parts of a product that are so much smaller than A lie in the space already; round-off is all that is left of them.
_NEGLIGIBLE = 1e-14


@dataclass(frozen=True, eq=False)
class ProjectedGram:
    """A on the space of V: eigenvalues are stored as their square roots, which bound singular values of H."""

    ritz: Tensor  # of VᵀAV, (K,), ascending
    ritz_vectors: Tensor  # in the coordinates of V, (K, K)
    residual: Tensor  # ‖A y − θ y‖ of each, (K,)
    nystrom: Tensor  # of A V (VᵀAV)⁻¹ VᵀA, (r,)
    nystrom_vectors: Tensor  # in the coordinates of V and of what lies next to it, (K + k, r)

    @property
    def error_bound(self) -> float:
        """δ of every σ: A is known to round-off of its norm, and its eigenvalues are squares."""
        return _ROUND_OFF * float(self.nystrom.max()) if self.nystrom.numel() else 0.0

    def leading(self, count: int) -> tuple[Tensor, Tensor]:
        """The largest values and how far each may be from a singular value of H, descending, (≤ count,) each."""
        # A symmetric matrix has an eigenvalue within ‖A y − θ y‖ of θ (Parlett, The Symmetric Eigenvalue Problem).
        sigma, residual = self.ritz[-count:].flip(0), self.residual[-count:].flip(0)
        return sigma, torch.minimum(residual / sigma.clamp(min=1e-300), residual.sqrt()) + self.error_bound


class KrylovSpace:
    """Orthonormal vectors V that A was multiplied with, and orthonormal ones beside them that it was not.

    The products A V lie in the span of both. The `pending` vectors beside V are to be multiplied next; the
    others only keep what A V has outside of V.
    """

    def __init__(self, dimension: int, capacity: int) -> None:
        # Vectors lie in rows. What is not filled yet takes no memory.
        self._vectors = torch.empty(capacity, dimension, dtype=torch.float64)
        self._other = self._vectors.new_zeros(0, dimension)
        self._inside = self._vectors.new_zeros(0, 0)  # VᵀAV, (K, K)
        self._pending, self._scale = 0, 0.0
        self._next = self._other.new_zeros(0, 0)  # rows of A V in the pending vectors, then in the other ones

    @property
    def size(self) -> int:
        """How many vectors A was multiplied with, K."""
        return self._inside.shape[0]

    @property
    def pending(self) -> Tensor:
        """The vectors to be multiplied, (k, n)."""
        return self._vectors[self.size : self.size + self._pending]

    def has_room(self, steps: int, count: int) -> bool:
        """Whether there is room for products with so many vectors in so many steps, and for what the last would add."""
        capacity, dimension = self._vectors.shape
        return self.size + min((steps + 1) * count, dimension - self.size) <= capacity

    def begin(self, vectors: Tensor) -> Tensor:
        """Let vectors (p, n) be pending in place of others; their coordinates (p, K + k) in V and the pending."""
        self._other, self._pending = torch.cat([self.pending, self._other]), 0
        coordinates, rest = _projected(vectors, self._vectors[: self.size])
        return torch.cat([coordinates, self._append(rest, 1.0)], -1)

    def extend(self, product: Tensor) -> None:
        """Take the product of A with the pending vectors, (k, n)."""
        size, k = self.size, self._pending
        coordinates, rest = _projected(product, self._vectors[: size + k])
        inside = torch.nn.functional.pad(self._inside, (0, k, 0, k))
        inside[size:, :size], inside[:size, size:] = coordinates[:, :size], coordinates[:, :size].mT
        own = coordinates[:, size:]
        inside[size:, size:] = (own + own.mT) / 2
        self._inside = inside
        self._scale = max(self._scale, float(_linalg.vector_norm(product, dim=-1).max()))
        self._next = torch.nn.functional.pad(self._next[k:], (0, k))
        self._pending = 0
        added = self._append(rest, self._scale)
        self._next[: self._pending, size:] += added.mT

    def release(self) -> None:
        """Gives the memory of the vectors back; what is known of A on them stays, and no product is wanted."""
        n = self._vectors.shape[1]
        self._vectors, self._other, self._pending = self._vectors.new_empty(0, n), self._other.new_empty(0, n), 0

    def compression(self) -> ProjectedGram:
        """What the space says about A, from all products up to now."""
        theta, vectors = _linalg.eigh(self._inside)
        outside = self._next @ vectors
        # Eigenvalues that are round-off have no inverse; a subspace without their vectors is as good a subspace.
        round_off = 1e-15 * self.size * theta[-1:].abs().sum()
        sound = theta > round_off
        factor = torch.cat([vectors * theta, outside])[:, sound] / theta[sound].sqrt()
        squares, turned = _linalg.eigh(factor.mT @ factor)
        nystrom = squares.clamp(min=round_off).sqrt()
        residual = _linalg.vector_norm(outside, dim=0)
        return ProjectedGram(theta.clamp(min=0).sqrt(), vectors, residual, nystrom, factor @ turned / nystrom)

    def _append(self, rest: Tensor, scale: float) -> Tensor:
        """Orthonormal pending vectors Q for what vectors (p, n) have outside of V: rest = M Q; M, (p, q)."""
        first = self.size + self._pending
        new, _ = _orthonormal(rest, scale)
        if new.numel() and float((new @ self._vectors[:first].mT).abs().sum()) > _NEGLIGIBLE * first:
            # Once more: what is left of a vector is not always orthogonal to the space that it came from.
            new, _ = _orthonormal(_projected(new, self._vectors[:first])[1], 1.0)
        q = new.shape[0]
        self._vectors[first : first + q] = new
        # The other vectors are replaced by the new ones and by what they have outside of these.
        shared, outside = _projected(self._other, new)
        pending, other = self._next[: self._pending], self._next[self._pending :]
        self._other, factor = _orthonormal(outside, 1.0)
        self._next = torch.cat([pending, shared.mT @ other, factor.mT @ other])
        self._pending += q
        return rest @ new.mT


def _orthonormal(vectors: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """Q (q, n), M (p, q) with vectors (p, n) = M Q, but for what is negligible at a scale."""
    Q, sizes, turned = _linalg.svd(vectors.mT, full_matrices=False)
    kept = sizes > _NEGLIGIBLE * scale
    return Q[:, kept].mT, (sizes[:, None] * turned)[kept].mT


def _projected(vectors: Tensor, basis: Tensor) -> tuple[Tensor, Tensor]:
    """Coordinates (p, K) of vectors in an orthonormal basis (K, n), by two passes, and what is left of them (p, n)."""
    coordinates = vectors @ basis.mT
    rest = vectors - coordinates @ basis
    more = rest @ basis.mT
    return coordinates + more, rest - more @ basis
