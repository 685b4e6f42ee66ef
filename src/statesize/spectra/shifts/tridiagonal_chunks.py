"""Chunks of positions of any T around tridiagonal cores, which stand for all that lies outside a chunk.

For i0 ≤ i < i0 + b and j = i − i0, H_i holds the rows j … of a chunk and the rows F after it, the columns E before it and
the columns …j − 1 of it. At a shift, the rows after the chunk have the pivot a alone and leave FᵀF / a on the columns
before it, or the columns before it have c alone and leave F Fᵀ / c on the rows after it, whichever is the smaller matrix.
This Gram matrix is made tridiagonal once, Θ = Qᵀ (FᵀF) Q; each shift of either sign is then a tridiagonal elimination
and one product (docs/engines.md, "Tridiagonal cores").
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from scipy.linalg import lapack
from torch import Tensor

from statesize.spectra.factorisation import corner_energies, singular_values
from statesize.spectra.lanes.cores import eliminate_around_cores
from statesize.spectra.shifts.sampled_largest import largest_at, largest_everywhere
from statesize.spectra.shifts.symmetric_elimination import ROUND_OFF

Array = npt.NDArray[np.float64]

_lapack = cast("Any", lapack)
# Columns that LAPACK transforms at once.
_BLOCK = 64
# Positions from one whose σ_1 is bounded by itself to the next, and how close the bounds are then, relative to it.
_EVERY, _CLOSE = 4, 5e-3
# Relative round-off of a norm.
_ROUNDED = 1e-12


@dataclass(frozen=True, eq=False)
class Cores:
    """What the chunks of E operators leave of what lies outside them; N = E · chunks, those of an operator in a row."""

    of_past: npt.NDArray[np.bool_]  # whether the core stands for the columns before the chunk, (N,)
    first: npt.NDArray[np.int64]  # where its rows begin in the next three, (N + 1,)
    diagonal: Array  # of Θ, (rows,)
    beside: Array  # the entries below the diagonal, a 0 last, (rows,)
    borders: Array  # Qᵀ times what couples the core with the chunk's rows and its columns, (rows, 2b)
    gram: Array  # of the chunk's rows over the columns before, or of its columns over the rows after, (N, b, b)
    inside: Array  # T inside the chunk, (N, b, b)
    outside: Tensor  # how many rows or columns have the pivot a or c alone, (N,)
    energy: Tensor  # their squared Frobenius norm, (N,)
    fourth: Tensor  # Σ σ⁴ of all rows from the chunk on by all columns up to its end, (N,)


@dataclass(frozen=True, eq=False)
class TridiagonalChunks:
    """N groups of b positions of T, eliminated at any shift; only groups that were asked for have a core."""

    strict: Tensor  # T below its diagonal, divided by the scale, (E, L, L); L a multiple of b
    scale: Tensor  # a power of 2, (E,)
    cores: Cores
    chunk: Tensor  # which of the chunks, (N,)

    @property
    def width(self) -> int:
        """Positions of a group, b."""
        return self.cores.inside.shape[-1]

    @property
    def rounds(self) -> int:
        """An evaluation of a group costs about as much as the singular values of one position."""
        return 2 * self.width + 2

    @property
    def order(self) -> int:
        """Rows of T."""
        return self.strict.shape[-1]

    @property
    def error(self) -> Tensor:
        """T is taken as it is: 0, (N,)."""
        return self.strict.new_zeros(self.chunk.shape[0])

    @property
    def summed_error(self) -> None:
        """No more is known than `error`."""
        return None

    def at(self, index: Tensor) -> TridiagonalChunks:
        """Some of the groups, which may repeat."""
        return replace(self, chunk=self.chunk[index])

    def squared_norms(self) -> Tensor:
        """‖H_i‖_F² as a sum of squares, (N, b)."""
        return self._everywhere(corner_energies(self.strict) * self.scale.square()[:, None])

    def norm_bound(self) -> Tensor:
        """An upper bound on σ_1 of every H_i of a group, (N,): the Schatten 4-norm of what holds them all."""
        return self.cores.fourth[self.chunk].sqrt().sqrt() * self._scales

    def largest(self) -> tuple[Tensor, Tensor]:
        """σ_1 of every position between two numbers, (N, b) each; the upper one is ∞ where T has negative entries."""
        bounds = [self._sampled(entry) for entry in self.strict]
        low, high = (torch.stack(part) * self.scale[:, None] for part in zip(*bounds, strict=True))
        return self._everywhere(low), self._everywhere(high)

    def _sampled(self, strict: Tensor) -> tuple[Tensor, Tensor]:
        if not bool((strict < 0).any()):
            return largest_everywhere(strict, _EVERY, _CLOSE)
        position = torch.arange(self.order, device=strict.device)
        rank = torch.minimum(position, self.order - position).clamp(min=1)
        low = (1 - _ROUNDED) * (corner_energies(strict) / rank).sqrt()
        return low, torch.full_like(low, torch.inf)

    def largest_at(self, chosen: Tensor, close: float, steps: int) -> tuple[Tensor, Tensor]:
        """σ_1 at positions of a mask (N, b) over all groups, as near as so many steps come, (k,) each; as `largest`."""
        mask = chosen.reshape(self.strict.shape[:2])
        none = self.strict.new_zeros(0)
        bounds = [(none, none)]
        for entry, wanted in zip(self.strict, mask, strict=True):
            positions = wanted.nonzero().squeeze(-1)
            if bool((entry < 0).any()):
                bounds.append((torch.zeros_like(entry[0, positions]), torch.full_like(entry[0, positions], torch.inf)))
            else:
                bounds.append(largest_at(entry, positions, close, steps))
        scale = self.scale.repeat_interleave(mask.sum(-1))
        return torch.cat([low for low, _ in bounds]) * scale, torch.cat([high for _, high in bounds]) * scale

    def spectra(self, group: Tensor, offset: Tensor) -> Tensor:
        """All singular values at chosen positions, (m, L/2), descending, zero-padded."""
        half = self.order // 2
        found: list[Tensor] = []
        for chunk, j in zip(self.chunk[group].tolist(), offset.tolist(), strict=True):
            entry, place = divmod(chunk, self.order // self.width)
            i = place * self.width + j
            sigma = singular_values(self.strict[entry, i:, :i]) * self.scale[entry]
            found.append(torch.nn.functional.pad(sigma, (0, max(1, half) - sigma.shape[0])))
        return torch.stack(found)

    def counts(self, shift: Tensor) -> tuple[Tensor, Tensor]:
        """How many σ(H_i) exceed τ (N,), (N, b) int64, exact for some threshold within the second result of it."""
        tau = shift / self._scales
        positive, _, size = self._eliminate(-tau, -tau)
        # Forming a Gram matrix and making it tridiagonal is exact for one within ε of its trace; it enters as G / τ.
        formed = (self.cores.energy[self.chunk] / tau + tau)[:, None]
        uncertainty = ROUND_OFF * torch.finfo(tau.dtype).eps * (formed + size)
        return positive, uncertainty * self._scales[:, None]

    def log_determinants(self, shift: Tensor) -> Tensor:
        """φ_i(s) = ln det(I + H_iᵀ H_i / s²), (N, b), at one shift s > 0 a group, (N,)."""
        s = shift / self._scales
        _, logarithm, _ = self._eliminate(s, -s)
        return logarithm + ((self.cores.outside[self.chunk] - self.order) * s.log())[:, None]

    @cached_property
    def _scales(self) -> Tensor:
        return self.scale[self.chunk // (self.order // self.width)]

    def _everywhere(self, positions: Tensor) -> Tensor:
        """(E, L) as groups, (N, b)."""
        return positions.reshape(-1, self.width)[self.chunk]

    def _eliminate(self, a: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        size = self.chunk.shape[0], self.width
        positive, logarithm, lost = np.empty(size, np.int64), np.empty(size), np.empty(size)
        cores, device = self.cores, a.device
        eliminate_around_cores(
            self.chunk.cpu().numpy(),
            a.cpu().numpy(),
            c.cpu().numpy(),
            cores.of_past,
            cores.first,
            cores.diagonal,
            cores.beside,
            cores.borders,
            cores.gram,
            cores.inside,
            positive,
            logarithm,
            lost,
        )
        return tuple(torch.from_numpy(part).to(device) for part in (positive, logarithm, lost))  # pyright: ignore[reportReturnType]


def tridiagonal_chunks(matrix: Tensor, width: int, needed: Tensor | None = None) -> TridiagonalChunks:
    """Chunks of b positions of T (E, L, L), b a power of 2 from 16 on, with cores where they are needed (chunks,)."""
    E, length = matrix.shape[:2]
    chunks = -(-length // width)
    missing = chunks * width - length
    strict = torch.nn.functional.pad(matrix.tril(-1), (0, missing, 0, missing))
    size = strict.abs().amax((-2, -1)) if strict.numel() else strict.new_ones(E)
    scale = torch.where(size > 0, torch.exp2(torch.floor(torch.log2(size))), torch.ones_like(size))
    strict = strict / scale[:, None, None]
    wanted = [True] * chunks if needed is None else needed.tolist()
    found = [part for entry in strict.cpu() for part in _cores(entry, width, wanted)]
    inside = strict.unflatten(1, (chunks, width)).unflatten(3, (chunks, width)).diagonal(0, 1, 3).movedim(-1, 1)
    counts = [len(part.diagonal) for part in found]
    place = torch.arange(chunks).repeat(E) * width
    of_past = np.array([part.of_past for part in found], np.bool_)
    cores = Cores(
        of_past,
        np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        *(np.concatenate([np.empty(0), *parts]) for parts in zip(*((p.diagonal, p.beside, p.borders) for p in found))),
        gram=np.stack([part.gram for part in found]) if found else np.empty((0, width, width)),
        inside=inside.flatten(0, 1).contiguous().cpu().numpy(),
        outside=torch.where(torch.from_numpy(of_past), chunks * width - width - place, place).to(matrix.device),
        energy=torch.tensor([part.energy for part in found], dtype=matrix.dtype, device=matrix.device),
        fourth=torch.tensor([part.fourth for part in found], dtype=matrix.dtype, device=matrix.device),
    )
    return TridiagonalChunks(strict, scale, cores, torch.arange(E * chunks, device=matrix.device))


@dataclass(frozen=True, eq=False)
class _Core:
    of_past: bool
    diagonal: Array
    beside: Array
    borders: Array
    gram: Array
    energy: float
    fourth: float


def _cores(strict: Tensor, b: int, needed: list[bool]) -> list[_Core]:
    """The cores of the chunks of one T (L, L)."""
    # Gram matrices of what lies outside grow from the middle of the sequence to its ends: before the middle those of the
    # columns, after it those of the rows.
    chunks = len(needed)
    half = (chunks + 1) // 2
    found: list[_Core] = []
    corner = strict[half * b :, : half * b]
    gram = corner.mT @ corner
    for k in range(half - 1, -1, -1):
        p = k * b
        # Columns up to the chunk's end over the rows after it, then over its own rows too.
        own, across = gram[p:, p:], gram[:p, p:]
        rows = strict[p : p + b, : p + b]
        whole = torch.addmm(gram, rows.mT, rows)
        energy, fourth = float(gram.diagonal().sum()), float(whole.square().sum())
        couple = torch.cat([rows[:, :p].mT, across], 1)
        parts = _tridiagonal(gram[:p, :p], couple) if needed[k] else _tridiagonal(gram[:0, :0], couple[:0])
        found.append(_Core(True, *parts, own.numpy(), energy, fourth))
        gram = whole[:p, :p]
    found.reverse()
    gram = corner @ corner.mT
    for k in range(half, chunks):
        p = k * b
        own, across = gram[:b, :b], gram[b:, :b]
        columns = strict[p:, p : p + b]
        whole = torch.addmm(gram, columns, columns.mT)
        energy, fourth = float(gram.diagonal().sum()), float(whole.square().sum())
        couple = torch.cat([across, columns[b:]], 1)
        parts = _tridiagonal(gram[b:, b:], couple) if needed[k] else _tridiagonal(gram[:0, :0], couple[:0])
        found.append(_Core(False, *parts, own.numpy(), energy, fourth))
        gram = whole[b:, b:]
    return found


def _tridiagonal(gram: Tensor, couple: Tensor) -> tuple[Array, Array, Array]:
    """The diagonal of Θ = Qᵀ G Q (p,), the entries beside it with a 0 last (p,) and Qᵀ W (p · 2b)."""
    p, columns = couple.shape
    borders = couple.numpy()
    if p < 2:
        return gram.diagonal().numpy().copy(), np.zeros(p), borders.ravel().copy()
    # LAPACK stores by columns; G is symmetric.
    reflections, diagonal, beside, factors, _ = _lapack.dsytrd(gram.numpy().T, lower=1, lwork=_BLOCK * p)
    below = np.asfortranarray(reflections[1:, :-1])
    turned, _, _ = _lapack.dormqr("L", "T", below, factors, np.asfortranarray(borders[1:]), _BLOCK * columns)
    return diagonal, np.append(beside, 0.0), np.concatenate([borders[:1], turned]).ravel()
