"""Chunks of positions around a shared core: every H_i of a chunk is one small matrix with a few rows taken away.

For i0 ≤ i < i0 + b and j = i − i0, H_i is equal up to orthogonal factors to

    [[R[j:], T[j:, :j]],
     [Σ,     Z[:, :j]]].

R and Σ stand for the past before the chunk, Σ and Z for the future after it. Σ is diagonal: the singular value
decomposition of the core is taken once, after which its inertia and log-determinant cost nothing at any shift. Where
the state is complex, so are R and Z; T is real, and so is what is left when the core is eliminated
(docs/appendix/engine-mathematics.md, "Bordered chunks").
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from statesize.spectra.factorisation import corner_energies, singular_values
from statesize.spectra.lanes.elimination import eliminate_chunks
from statesize.spectra.spectrum import fourth_root

# Products with HᵀH after which a Rayleigh quotient is near enough to σ_1 to start from.
_POWER_STEPS = 10


@dataclass(frozen=True, eq=False)
class BorderedChunks:
    """N chunks of b positions around a core each."""

    past: Tensor  # R, (N, b, k)
    inside: Tensor  # T inside the chunk, strictly lower, (N, b, b)
    core: Tensor  # Σ, (N, k), not negative
    future: Tensor  # Z, (N, k, b)
    error: Tensor  # how far the singular values of these matrices can be from those of the H_i they stand for, (N,)
    summed_error: Tensor | None = None  # the sum of these distances, (N,), where more is known than `error`

    @property
    def width(self) -> int:
        """Positions per chunk, b."""
        return self.inside.shape[-1]

    @property
    def evaluations_per_spectrum(self) -> int:
        """Two evaluations cost less than the singular values of a position."""
        return 2

    @property
    def order(self) -> int:
        """Rows of a chunk's whole matrix, b + k."""
        return self.width + self.core.shape[-1]

    @property
    def ranks(self) -> None:
        """No more is known than the shape of H_i: what these matrices leave out is small, but may not be 0."""
        return None

    def at(self, index: Tensor) -> BorderedChunks:
        """Some of the chunks, in the order of an index (m,), in which numbers may repeat."""
        if torch.equal(index, torch.arange(self.core.shape[0], device=index.device)):
            return self
        parts = (self.past, self.inside, self.core, self.future, self.error)
        past, inside, core, future, error = (part[index] for part in parts)
        summed = None if self.summed_error is None else self.summed_error[index]
        return BorderedChunks(past, inside, core, future, error, summed)

    def squared_norms(self) -> Tensor:
        """‖H_i‖_F² as a sum of squares, (N, b)."""
        rows = self.past.abs().square().sum(-1).flip(-1).cumsum(-1).flip(-1)
        columns = torch.nn.functional.pad(self.future.abs().square().sum(-2).cumsum(-1)[:, :-1], (1, 0))
        return self.core.square().sum(-1, keepdim=True) + rows + columns + corner_energies(self.inside)

    def are_zero(self) -> Tensor:
        """Where every entry of the matrices is exactly 0, (N, b); squares of small ones may vanish."""
        past, inside, core, future = (
            (part != 0).to(self.core.dtype) for part in (self.past, self.inside, self.core, self.future)
        )
        return BorderedChunks(past, inside, core, future, self.error).squared_norms() == 0

    def norm_bound(self) -> Tensor:
        """An upper bound on σ_1 of every H_i of a chunk, (N,): the Schatten 4-norm of the whole matrix."""
        # ‖RᴴR + Σ²‖² term by term: R has fewer rows than columns where the rank is high.
        rows = (self.past @ self.past.mH).abs().square().sum((-2, -1))
        columns = self.past.abs().square().sum(-2)
        left = rows + (self.core.square() * (2 * columns + self.core.square())).sum(-1)
        right = self.inside.mT @ self.inside + _real(self.future.mH @ self.future)
        across = self.past.mH @ self.inside.to(self.past.dtype) + self.core[..., None] * self.future
        fourth = left + right.square().sum((-2, -1)) + 2 * across.abs().square().sum((-2, -1))
        return fourth_root(fourth)

    def log_determinants(self, shift: Tensor) -> Tensor:
        """φ_i(s) = ln det(I + H_iᵀ H_i / s²), (N, b), at one shift s > 0 per chunk, (N,)."""
        s = shift[:, None]
        weight = (s.square() + self.core.square()).reciprocal()
        rows, cross, columns = self._complement(s, weight, sign=-1.0)
        _, logarithm, _ = eliminate(rows, cross, columns)
        return torch.log1p((self.core / s).square()).sum(-1, keepdim=True) + logarithm - self.width * s.log()

    def counts(self, shift: Tensor) -> tuple[Tensor, Tensor]:
        """How many σ(H_i) exceed τ (N,), (N, b) int64, exact for some threshold within the second result of it."""
        # The positive inertia of [[−τI, H], [Hᵀ, −τI]] (Sylvester).
        tau = shift[:, None]
        weight = (tau.square() - self.core.square()).reciprocal()
        rows, cross, columns = self._complement(tau, weight, sign=1.0)
        positive, _, size = eliminate(rows, cross, columns)
        epsilon = torch.finfo(self.inside.dtype).eps
        past, future = self.past.abs().square().sum(-2), self.future.abs().square().sum(-1)
        products = weight.abs() * (tau * (past + future)) + weight.abs() * self.core * past.sqrt() * future.sqrt()
        formed = products.sum(-1, keepdim=True) + tau + self.inside.square().sum((-2, -1))[:, None].sqrt()
        uncertainty = epsilon * (self.past.shape[-1] * formed + SIZE_ERROR * size)
        return (self.core > tau).sum(-1, keepdim=True) + positive, uncertainty

    def _complement(self, s: Tensor, weight: Tensor, sign: float) -> tuple[Tensor, Tensor, Tensor]:
        # Schur complement on the chunk's rows and columns after eliminating the core: with weight 1/(τ² − Σ²) and sign
        # 1 of [[−τI, H], [Hᵀ, −τI]], with 1/(s² + Σ²) and −1 of [[sI, H], [Hᵀ, −sI]].
        eye = torch.eye(self.width, dtype=s.dtype, device=s.device)
        weighted = self.past * weight[:, None, :]
        rows = -sign * s[..., None] * eye + s[..., None] * _real(weighted @ self.past.mH)
        cross = self.inside + sign * _real((weighted * self.core[:, None, :]) @ self.future)
        columns = -s[..., None] * eye + sign * s[..., None] * _real((self.future.mH * weight[:, None, :]) @ self.future)
        return rows, cross, columns

    def largest(self) -> tuple[Tensor, Tensor]:
        """σ_1 of every position from below, ‖Hᵀ u‖ after a few steps of the power method, and infinity, (N, b) each."""
        b, k = self.width, self.core.shape[-1]
        within = torch.arange(b, device=self.core.device)
        kept_rows = within >= within[:, None]
        kept_columns = within < within[:, None]
        generator = torch.Generator().manual_seed(0)
        start = torch.randn(b + k, generator=generator, dtype=torch.float64).to(self.core.device)
        far = start[:k].to(self.past.dtype).expand(self.core.shape[0], b, k)
        near = (start[k:] * kept_columns).to(self.past.dtype).expand(self.core.shape[0], b, b)
        inside = self.inside.to(self.past.dtype)
        norm = self.core.new_zeros(self.core.shape[0], b)
        for _ in range(_POWER_STEPS):
            # In two steps, as the squares of σ² vanish long before σ does.
            size = torch.cat([far.abs(), near.abs()], -1).amax(-1, keepdim=True)
            size = torch.where(size > 0, size, torch.ones_like(size))
            far, near = far / size, near / size
            size = torch.hypot(far.abs().square().sum(-1).sqrt(), near.abs().square().sum(-1).sqrt())[..., None]
            size = torch.where(size > 0, size, torch.ones_like(size))
            far, near = far / size, near / size
            rows = (far @ self.past.mT + near @ inside.mT) * kept_rows
            after = far * self.core[:, None, :] + near @ self.future.mT
            far = rows @ self.past.conj() + after * self.core[:, None, :]
            near = (rows @ inside + after @ self.future.conj()) * kept_columns
            norm = torch.hypot(rows.abs().square().sum(-1).sqrt(), after.abs().square().sum(-1).sqrt())
        return norm, torch.full_like(norm, torch.inf)

    def spectra(self, chunk: Tensor, offset: Tensor) -> Tensor:
        """All singular values at chosen positions (m,), (m, b + k), descending, zero-padded."""
        within = torch.arange(self.width, device=chunk.device)
        kept_rows = within >= offset[:, None]
        kept_columns = within < offset[:, None]
        past = self.past[chunk] * kept_rows[..., None]
        inside = self.inside[chunk] * kept_rows[..., None] * kept_columns[:, None, :]
        future = self.future[chunk] * kept_columns[:, None, :]
        core = torch.diag_embed(self.core[chunk])
        return singular_values(torch.cat([torch.cat([past, inside], -1), torch.cat([core, future], -1)], -2))


def _real(matrix: Tensor) -> Tensor:
    return matrix.real if matrix.is_complex() else matrix


SIZE_ERROR = 2.0
"""An elimination is exact for a matrix within this times eps times the size; 0.5 was the most that was seen."""


def eliminate(rows: Tensor, cross: Tensor, columns: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Positive pivots (N, b) int64, Σ ln |pivot| and size (N, b) of S_j = [[P[j:, j:], X[j:, :j]], [·, C[:j, :j]]]."""
    # P and C symmetric, all (N, b, b). The size is Σ (|pivot| + |row|²/|pivot|): the computed elimination, without
    # pivoting, is exact for some S_j + E with ‖E‖ ≤ SIZE_ERROR · eps · size.
    b = rows.shape[-1]
    padded = 1 << (b - 1).bit_length()
    whole = rows.new_zeros(rows.shape[0], 2 * padded, 2 * padded)
    # Rows added behind have a pivot below 0 in every S_j, of the size of the others.
    added = rows.diagonal(0, -2, -1).abs().amax(-1, keepdim=True)
    added = torch.where((added > 0) & torch.isfinite(added), added, 1.0)
    whole.diagonal(0, -2, -1).copy_(-added)
    whole[:, :b, :b], whole[:, :b, padded : padded + b] = rows, cross
    whole[:, padded : padded + b, padded : padded + b] = columns
    shape = (len(whole), padded)
    positive, logarithm, size = np.empty(shape, np.int64), np.empty(shape), np.empty(shape)
    eliminate_chunks(whole.numpy(), 1, positive, logarithm, size)
    logarithms = torch.from_numpy(logarithm) - (padded - b) * added.log()
    return torch.from_numpy(positive)[:, :b], logarithms[:, :b], torch.from_numpy(size)[:, :b]
