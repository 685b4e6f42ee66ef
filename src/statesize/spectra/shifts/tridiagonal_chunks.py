"""Chunks of positions of any T around tridiagonal cores, which stand for all that lies outside a chunk.

T has r rows per position, several where readouts share an input. For i0 ≤ i < i0 + b and j = i − i0, H_i holds the rows
of a chunk from r j on and all rows after it, the columns before j of the chunk and all columns before it; F lies in the
rows after and the columns before. At a shift, the rows after the
chunk have the pivot a alone and leave FᵀF / a on the columns before it, or the columns before it have c alone and leave
F Fᵀ / c on the rows after it, whichever is the smaller matrix.
This Gram matrix is made tridiagonal once, Θ = Qᵀ (FᵀF) Q; each shift of either sign is then a tridiagonal elimination
and one product (docs/appendix/engine-mathematics.md, "Tridiagonal cores").
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from statesize.parallel.threads import ComputedOnce, end_if_unwanted
from statesize.spectra.factorisation import corner_energies, singular_values
from statesize.spectra.shifts.largest_values import largest_everywhere
from statesize.spectra.shifts.tridiagonal_cores import eliminate_around_cores
from statesize.spectra.shifts.tridiagonal_reduction import LANES, add_chunk
from statesize.spectra.spectrum import ROUND_OFF, UNDERFLOW, fourth_root

Array = npt.NDArray[np.float64]

# Length up to which σ_1 of every position is bounded by itself, positions from one to the next beyond it, and how close
# the bounds are then, relative to σ_1.
_ALL, _EVERY, _CLOSE = 768, 4, 3e-4
# Relative round-off of a norm.
_ROUNDED = 1e-12


@dataclass(frozen=True, eq=False)
class Cores:
    """What the chunks of E operators leave of what lies outside them; N = E · chunks, those of an operator in a row.

    Attributes:
        of_past: Whether the core stands for the columns before the chunk, (N,).
        first: Where the rows of each core begin in the next three, (N + 1,).
        diagonal: Diagonal of Θ, (rows,).
        beside: The entries below the diagonal, a 0 last, (rows,).
        borders: Qᵀ times what couples the core with the chunk's rows and its columns, (rows, (r + 1) b).
        gram: Gram matrix of the chunk's r b rows over the columns before, or of its b columns over the rows after,
            (N, r b, r b).
        inside: T inside the chunk, (N, r b, b).
        energy: The squared Frobenius norm of the rows or columns that have the pivot a or c alone, (N,).
        fourth: Σ σ⁴ of all rows from the chunk on by all columns up to its end, (N,).
    """

    of_past: npt.NDArray[np.bool_]
    first: npt.NDArray[np.int64]
    diagonal: Array
    beside: Array
    borders: Array
    gram: Array
    inside: Array
    energy: Array
    fourth: Array

    @ComputedOnce
    def pivots(self) -> Array:
        """How many pivots each position has, (N, b): of the core, and the chunk's rows after and columns before it."""
        rows, b = self.inside.shape[1:]
        before: Array = np.arange(b, dtype=np.float64)
        return np.diff(self.first)[:, None] + rows // b * (b - before) + before


@dataclass(frozen=True, eq=False)
class TridiagonalChunks:
    """N groups of b positions of T, eliminated at any shift; only requested groups have a core."""

    strict: Tensor  # T below its diagonal, divided by the scale, (E, r L, L); L a multiple of b
    scale: Tensor  # a power of 2, (E,)
    reach: Tensor  # see `reach_of`, (E, L, 2)
    cores: Cores
    chunk: Tensor  # which of the chunks, (N,)
    scales: Tensor  # the scale of its operator, (N,)

    @property
    def width(self) -> int:
        """Positions of a group, b."""
        return self.cores.inside.shape[-1]

    @property
    def evaluations_per_spectrum(self) -> int:
        """From 2 to 20 were seen up to 256 tokens, 90 to 700 at 1,024."""
        return max(2, self.length**2 // 2**14)

    @property
    def order(self) -> int:
        """Rows of T."""
        return self.strict.shape[-2]

    @property
    def length(self) -> int:
        """Columns of T."""
        return self.strict.shape[-1]

    @property
    def readouts(self) -> int:
        """Rows of a position, r."""
        return self.order // self.length

    @property
    def ranks(self) -> Tensor:
        """The shorter side of each H_i without what is 0, (N, b)."""
        position, (columns, ends) = torch.arange(self.length), self.reach.unbind(-1)
        return self._everywhere(torch.minimum(position - columns, ends - self.readouts * position))

    @property
    def error(self) -> Tensor:
        """T is taken as it is, but what is tiny beside its largest entry may vanish, (N,)."""
        return UNDERFLOW * self.scales

    @property
    def summed_error(self) -> None:
        """No more is known than `error`."""
        return None

    def at(self, index: Tensor) -> TridiagonalChunks:
        """Some of the groups, which may repeat."""
        whole = self.strict, self.scale, self.reach, self.cores
        return TridiagonalChunks(*whole, self.chunk[index], self.scales[index])

    def squared_norms(self) -> Tensor:
        """‖H_i‖_F² as a sum of squares, (N, b)."""
        return self._everywhere(self._energies * self.scale.square()[:, None])

    def are_zero(self) -> Tensor:
        """Where every entry of H_i is exactly 0, (N, b); squares of small ones may vanish."""
        return self._everywhere(corner_energies((self.strict != 0).to(self.strict.dtype)) == 0)

    def norm_bound(self) -> Tensor:
        """An upper bound on σ_1 of every H_i of a group, (N,): the Schatten 4-norm of what holds them all."""
        return fourth_root(self._of_chunks(self.cores.fourth)) * self.scales

    def largest(self) -> tuple[Tensor, Tensor]:
        """σ_1 of every position between two numbers, (N, b) each; the upper one is ∞ where T has negative entries."""
        position = torch.arange(self.length)
        rank = torch.minimum(position, self.readouts * (self.length - position)).clamp(min=1)
        low = (1 - _ROUNDED) * (self._energies / rank).sqrt()
        high = torch.full_like(low, torch.inf)
        positive = self.strict.amin((-2, -1)) >= 0
        if positive.any():
            # Σ σ⁴ of what holds the positions of a chunk is at least that of each; of chunks that nobody asked for
            # it is not known.
            fourth = torch.from_numpy(self.cores.fourth).to(low).reshape(len(low), -1).repeat_interleave(self.width, -1)
            fourth = torch.where(fourth > 0, fourth, torch.inf)
            strict, reach = self.strict, self.reach
            if not positive.all():
                strict, fourth, reach = strict[positive], fourth[positive], reach[positive]
            every = 1 if self.length <= _ALL else _EVERY
            closer, high[positive] = largest_everywhere(strict, fourth, reach, every, _CLOSE)
            low[positive] = torch.maximum(low[positive], closer)
        low, high = (self._everywhere(part * self.scale[:, None]) for part in (low, high))
        return low, high

    def spectra(self, group: Tensor, offset: Tensor) -> Tensor:
        """All singular values at chosen positions, (m, r L/(r + 1)), descending, zero-padded."""
        most = max(1, self.order // (self.readouts + 1))
        parts: list[Tensor] = []
        for k, j in cast("list[list[int]]", torch.stack([self.chunk[group], offset], -1).tolist()):
            entry, number = divmod(k, self.length // self.width)
            i = number * self.width + j
            column, end = cast("list[int]", self.reach[entry, i].tolist())
            sigma = singular_values(self.strict[entry, self.readouts * i : end, column:i]) * self.scale[entry]
            parts.append(torch.nn.functional.pad(sigma, (0, most - sigma.shape[0])))
        return torch.stack(parts)

    def counts(self, shift: Tensor) -> tuple[Tensor, Tensor]:
        """How many σ(H_i) exceed τ (N,), (N, b) int64, exact for some threshold within the second result of it."""
        tau = shift / self.scales
        positive, _, size = self._eliminate(-tau, -tau, logarithms=False)
        # Forming a Gram matrix and making it tridiagonal is exact for one within ε of its trace; it enters as G / τ.
        formed = (self._of_chunks(self.cores.energy) / tau + tau)[:, None]
        uncertainty = size.add_(formed).mul_(ROUND_OFF * torch.finfo(tau.dtype).eps)
        return positive, uncertainty.mul_(self.scales[:, None])

    def log_determinants(self, shift: Tensor) -> Tensor:
        """φ_i(s) = ln det(I + H_iᵀ H_i / s²), (N, b), at one shift s > 0 per group, (N,)."""
        s = shift / self.scales
        _, logarithm, _ = self._eliminate(s, -s, logarithms=True)
        return logarithm - self._of_chunks(self.cores.pivots) * s.log()[:, None]

    @ComputedOnce
    def _energies(self) -> Tensor:
        return corner_energies(self.strict)

    def _of_chunks(self, numbers: npt.NDArray[Any]) -> Tensor:
        """What is known of all chunks, of those here."""
        return torch.from_numpy(numbers)[self.chunk]

    def _everywhere(self, positions: Tensor) -> Tensor:
        """(E, L) as groups, (N, b)."""
        return positions.reshape(-1, self.width)[self.chunk]

    def _eliminate(self, a: Tensor, c: Tensor, *, logarithms: bool) -> tuple[Tensor, Tensor, Tensor]:
        cores, count, b = self.cores, self.chunk.shape[0], self.width
        positive, lost = np.empty((count, b), np.int64), np.empty((count, b))
        logarithm = np.empty((count, b if logarithms else 0))
        eliminate_around_cores(
            self.chunk.numpy(),
            a.numpy(),
            c.numpy(),
            cores.of_past,
            cores.first,
            cores.diagonal,
            cores.beside,
            cores.borders.ravel(),
            cores.gram,
            cores.inside,
            positive,
            logarithm,
            lost,
        )
        return torch.from_numpy(positive), torch.from_numpy(logarithm), torch.from_numpy(lost)


def tridiagonal_chunks(matrix: Tensor, width: int, needed: Tensor | None = None) -> TridiagonalChunks:
    """Chunks of b positions of T (E, r, L, L), b a power of 2 from 8 on, with cores where needed (chunks,)."""
    E, readouts, length = matrix.shape[:3]
    chunks = -(-length // width)
    wanted = np.ones(chunks, np.bool_) if needed is None else needed.numpy()
    strict, scale = _scaled(matrix, chunks * width)
    # What a window hides of the past, and of the future, takes no part. Cores of the past until it has more columns
    # than the future has rows, both without what is hidden and with it, as Gram matrices of rows are r times as wide;
    # then cores of the future. All sizes are multiples of LANES.
    reach = reach_of(strict, readouts * length)
    columns, ends = reach.unbind(-1)
    position, number = torch.arange(chunks * width), np.arange(chunks)
    top = readouts * position
    begin, end = torch.cat([columns, position[None]]).amin(0), torch.cat([ends, top[None]]).amax(0)
    begin = begin[::width].numpy() // LANES * LANES
    end = np.append(-(-end[width::width].numpy() // LANES) * LANES, readouts * chunks * width)
    past, future = number * width - begin, end - readouts * (number + 1) * width
    longer = (past > future) & (number > readouts * (chunks - 1 - number))
    half = int(longer.argmax()) if longer.any() else chunks
    of_past = number < half
    limits, rows = np.where(of_past, begin, end), np.where(wanted, np.where(of_past, past, future), 0)
    begins, first = (np.append(0, counted.cumsum()).astype(np.int64) for counted in (rows, np.tile(rows, E)))
    total, inside = int(rows.sum()), readouts * width
    of_cores = (total,), (total,), (total, inside + width)
    of_chunks = (chunks, inside, inside), (chunks, inside, width), (chunks,), (chunks,)
    parts = [np.zeros((E, *shape)) for shape in (*of_cores, *of_chunks)]
    # Gram matrices of what lies outside grow from the middle of the sequence to its ends: before the middle those of
    # the columns, after it those of the rows. No farther than to the outermost chunks that are needed.
    reached, corner = np.flatnonzero(wanted), strict[:, readouts * half * width :, : half * width]
    before = range(half - 1, int(reached.min(initial=half)) - 1, -1)
    after = range(half, int(reached.max(initial=-1)) + 1)
    for way, columns in ((before, corner), (after, corner.mT)):
        gram = (columns.mT @ columns).numpy() if way else np.empty(0)
        for k in way:
            end_if_unwanted()
            add_chunk(strict.numpy(), gram, k, half, bool(wanted[k]), begins[k], int(limits[k]), *parts)
    cores = Cores(np.tile(of_past, E), first, *(part.reshape(-1, *part.shape[2:]) for part in parts))
    given = torch.arange(E * chunks), scale.repeat_interleave(chunks)
    return TridiagonalChunks(strict, scale, reach, cores, *given)


def reach_of(strict: Tensor, rows: int) -> Tensor:
    """The first column of each H_i and the end of its rows, beyond which all are 0; of T (E, r L, L), (E, L, 2)."""
    # No row from `rows` on has an entry.
    entries, order, length = strict.shape
    number = torch.arange(length)
    position = number.repeat(entries, 1)
    top = order // length * position
    if (strict[:, rows - 1, 0] != 0).all():
        # The last row reads the first column, so all of each block may be read.
        return torch.stack([torch.zeros_like(position), top.clamp(min=rows)], -1)
    there = strict != 0
    # The last row of each column and those before it, and the first column of each row and those after it.
    last = torch.where(there, torch.arange(order)[:, None], -1).amax(1).cummax(-1).values
    first = torch.where(there, number, length).amin(2).flip(-1).cummin(-1).values.flip(-1)
    columns, ends = torch.searchsorted(last, top), torch.searchsorted(first.contiguous(), position)
    return torch.stack([torch.minimum(columns, position), torch.maximum(ends, top)], -1)


def _scaled(matrix: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """T below its diagonal, (E, r L, L), zeros up to a length, entries at most 2 in size; what divided it, (E,)."""
    strict = matrix.tril(-1)
    if length > matrix.shape[-1]:
        strict = torch.nn.functional.pad(strict, (0, length - matrix.shape[-1]) * 2)
    strict = strict.transpose(1, 2).flatten(1, 2)
    size = matrix.new_ones(matrix.shape[0])
    if strict.numel():
        size = torch.maximum(strict.amax((-2, -1)), -strict.amin((-2, -1)))
    scale = torch.where(size > 0, torch.exp2(torch.floor(torch.log2(size))), torch.ones_like(size))
    return strict.div_(scale[:, None, None]), scale
