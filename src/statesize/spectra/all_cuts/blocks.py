"""Counts and entropies at all cuts, in a few times the time of products of matrices.

The positions of a chunk share a tridiagonal core, beside which each threshold costs one elimination. What singular
values within round-off of a threshold leave open goes to `exact`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from statesize.spectra.all_cuts.chunks import cores_of
from statesize.spectra.all_cuts.eliminations import (
    Array,
    Cores,
    Places,
    eliminate_chunks,
    eliminate_each,
    largest_values,
)
from statesize.spectra.all_cuts.quadrature import FROM, STEP, Entropies, entropies
from statesize.spectra.cut import Cut
from statesize.spectra.engine import Counts, HankelBlocks
from statesize.spectra.exact.exact import ExactBlocks
from statesize.spectra.spectrum import ROUND_OFF, UNDERFLOW

_EPS = float(np.finfo(np.float64).eps)
# Round-off of Gram matrices, in units of eps ‖H‖_F²; see `exact`.
_GRAM = 32
# How far beside a threshold its counts are taken, relative to it.
_GAP = 1e-7
# How far below the largest values of a chunk the shift lies that separates them from the second ones.
_BELOW = 1e-3
# Shifts of entropies, and further ones where these leave too much open.
_SHIFTS, _MORE = 18, 1
# How far above the root of what squares are off by a σ counts.
_VISIBLE = 4
# Error at which no further shifts are taken for an entropy, and bound up to which it is kept, relative to it.
_CLOSE, _KEPT = 1e-4, 2e-4


class _Matrix:
    """One matrix (r L, L) at ascending positions."""

    def __init__(self, matrix: Array, cut: Cut, width: int) -> None:
        largest = float(max(matrix.max(initial=0), -matrix.min(initial=0)))
        self.scale = float(np.exp2(np.floor(np.log2(largest)))) if largest else 1.0
        self._limit, r = cut.limits.numpy(), cut.readouts
        filled = -cut.length % width
        matrix = np.pad(matrix / self.scale, ((0, r * filled), (0, filled)))
        early = [i for i in cut.positions if i <= r * (cut.length - i)]
        late = [cut.length + filled - i for i in reversed(cut.positions[len(early) :])]
        self._cores = [cores_of(matrix, r, 1, early, width)]
        if late:
            # H_{L−i} of Tᵀ with rows and columns in reverse order is H_iᵀ with both in reverse order.
            turned = matrix[::-1, ::-1].T[:, : r * (late[-1] // width + 1) * width]
            self._cores.append(cores_of(np.ascontiguousarray(turned), 1, r, late, width))
        self._begins = [np.searchsorted(cores.chunk, np.arange(len(cores.gram))) for cores in self._cores]
        self.energies = self._joined([cores.energies for cores in self._cores])
        # As far as σ² may be off: squares of what is small beside the largest entry are lost.
        self.off = _GRAM * _EPS * self.energies + UNDERFLOW**2
        # The first entry of each row that is not 0, and of all rows from it on, tell which blocks are 0.
        first = np.where((matrix != 0).any(1), (matrix != 0).argmax(1), len(matrix))
        at = np.array(cut.positions, np.int64)
        self.zero = np.minimum.accumulate(first[::-1])[::-1][r * at] >= at

    def _joined(self, parts: Sequence[npt.NDArray[Any]]) -> npt.NDArray[Any]:
        return np.concatenate([parts[0], *(part[::-1] for part in parts[1:])])

    def _split(self, part: npt.NDArray[Any]) -> list[npt.NDArray[Any]]:
        """Numbers at all positions in the order of the cores."""
        early = len(self._cores[0].chunk)
        return [part[:early], part[early:][::-1]][: len(self._cores)]

    def counts(self, thresholds: Array) -> tuple[Places, Places]:
        """The least and largest #{σ > τ} for thresholds (K,), (P, K) each."""
        tau = np.broadcast_to(thresholds / self.scale, (len(self._limit), len(thresholds)))
        return self._between(tau, tau, tau[:, :0])[:2]

    def relative_counts(self, ratios: Array) -> tuple[Places, Places]:
        """The least and largest #{σ > ρ σ_1} for ratios (R,), (P, R) each."""
        largest = [np.zeros((len(cores.chunk), 2)) for cores in self._cores]
        for cores, part in zip(self._cores, largest, strict=True):
            largest_values(cores, part)
        top, residual = self._joined(largest).T[:, :, None]
        high = top * (1 + 4 * _GAP)
        with np.errstate(invalid="ignore", divide="ignore"):
            # If one σ alone lies above s, σ_1² is at most what was found and the square of its residual over the
            # distance from s² (Parlett, The Symmetric Eigenvalue Problem, section 11.6).
            shift = self._of_chunks(top, np.fmin) * (1 - _BELOW)
            lower, upper, count, off = self._between(top * ratios, high * ratios, shift)
            alone = (count == 1) & (top**2 + (residual * top**2) ** 2 / (top**2 - (shift + off) ** 2) <= high**2)
            found = alone & (shift + off < top) | self.zero[:, None]
            # Else σ_1 is what was found only if no σ is larger.
            above, off = self._above(np.where(found, 0, top * (1 + 2 * _GAP)))
        found |= (above == 0) & (off <= 2 * _GAP * top)
        return np.where(found, lower, 0), np.where(found, upper, self._limit[:, None])

    def _between(self, low: Array, high: Array, beside: Array) -> tuple[Places, Places, Places, Array]:
        """#{σ > τ} of thresholds between two numbers, between bounds, (P, K) each; `_above_of_chunks` of others."""
        K = low.shape[1]
        with np.errstate(divide="ignore", invalid="ignore"):
            below, above = low - self._gap(low), high + self._gap(high)
            # First at thresholds that the positions of a chunk share.
            least, most = self._of_chunks(below, np.fmin), self._of_chunks(above, np.fmax)
            counts, off = self._above_of_chunks(np.concatenate([least, most, beside], 1))
            lower, upper = self._within(least, most, counts, off, low, high)
            undecided = lower != upper
            if undecided.any():
                shifts = np.where(np.tile(undecided, 2), np.concatenate([below, above], 1), 0)
                own_lower, own_upper = self._within(below, above, *self._above(shifts), low, high)
                lower, upper = np.maximum(lower, own_lower), np.minimum(upper, own_upper)
        return lower, upper, counts[:, 2 * K :], off[:, 2 * K :]

    def _within(
        self, below: Array, above: Array, counts: Places, off: Array, low: Array, high: Array
    ) -> tuple[Places, Places]:
        """What counts at shifts below and above thresholds say of those."""
        K = low.shape[1]
        most = np.where(below + off[:, :K] <= low, counts[:, :K], self._limit[:, None])
        least = np.where(above - off[:, K : 2 * K] >= high, counts[:, K : 2 * K], 0)
        return least, np.where(self.zero[:, None] & (low >= 0), 0, most)

    def _gap(self, tau: Array) -> Array:
        """How far beside thresholds (P, K) counts are taken: for the Gram matrices once, for eliminations twice."""
        return _GAP * tau + 3 * self.off[:, None] / tau

    def _of_chunks(self, part: Array, among: np.ufunc) -> Array:
        """The least or largest (P, K) of each chunk, at all of its positions."""
        parts = zip(self._cores, self._begins, self._split(part), strict=True)
        return self._joined([among.reduceat(own, first)[cores.chunk] for cores, first, own in parts])

    def _above_of_chunks(self, shifts: Array) -> tuple[Places, Array]:
        """`_above` for shifts (P, K) that all positions of a chunk share."""
        found = list[Array]()
        for cores, first, part in zip(self._cores, self._begins, self._split(shifts), strict=True):
            found.append(eliminate_chunks(cores, np.where(part > 0, part, 0)[first], 1))
        return self._known(shifts, self._joined(found))

    def _above(self, shifts: Array) -> tuple[Places, Array]:
        """#{σ > τ} for shifts (P, K), and how far beside them round-off may have counted it; ∞ at τ ≤ 0."""
        parts = zip(self._cores, self._split(shifts), strict=True)
        return self._known(shifts, self._joined([eliminate_each(cores, part) for cores, part in parts]))

    def _known(self, shifts: Array, found: Array) -> tuple[Places, Array]:
        counts, _, sizes = np.moveaxis(found, 2, 0)
        off = ROUND_OFF * _EPS * sizes + self.off[:, None] / shifts
        return counts.astype(np.int64), np.where((shifts > 0) & np.isfinite(off), off, np.inf)

    def ranks(self, wanted: npt.NDArray[np.bool_]) -> Places:
        """How many σ lie above round-off at some of the positions, at least 1, and at others how many there are."""
        with np.errstate(divide="ignore"):
            counts, _ = self._above(np.where(wanted, _VISIBLE * np.sqrt(self.off), 0)[:, None])
        return np.where(wanted & ~self.zero, np.clip(counts[:, 0], 1, self._limit), self._limit)

    def entropies(self) -> Entropies:
        """At all positions, (P,) each."""
        parts = zip(self._cores, *map(self._split, (self.energies, self._limit, self.off)), strict=True)
        return Entropies(*map(self._joined, zip(*(_entropies(*part) for part in parts), strict=True)))  # pyright: ignore[reportArgumentType]


def _entropies(cores: Cores, energy: Array, limit: Places, off: Array) -> Entropies:
    """Entropies at the positions of cores, from Σσ² there, how many σ there are, and how far σ² may be off."""
    # Each chunk has its own largest shift.
    top = np.zeros(len(cores.gram))
    np.maximum.at(top, cores.chunk, energy)
    top = FROM * np.sqrt(np.where(top > 0, top, 1.0))
    here = top[cores.chunk]
    found = Entropies(*(np.zeros(len(energy)) for _ in Entropies._fields))
    wanted, logarithms = np.ones(len(top), np.bool_), np.zeros((len(energy), 0))
    while wanted.any():
        taken = logarithms.shape[1]
        steps = np.exp(-STEP * np.arange(taken, taken + (_MORE if taken else _SHIFTS)))
        more = eliminate_chunks(cores, np.where(wanted, top, 0)[:, None] * steps, -1)
        logarithms = np.concatenate([logarithms, more[..., 1]], 1)
        with np.errstate(divide="ignore", invalid="ignore"):
            answers = entropies(logarithms, energy / here**2, limit)  # pyright: ignore[reportArgumentType]
        for every, answer in zip(found, answers, strict=True):
            np.copyto(every, answer, where=wanted[cores.chunk])
        # Below √e only round-off is seen.
        left = (found.error > _CLOSE) & ((here * steps[-1] * np.exp(-STEP * _MORE)) ** 2 > off)
        wanted[:] = False
        wanted[cores.chunk[left]] = True
    return found._replace(total=found.total * here)


class AllCutsBlocks(HankelBlocks):
    """The blocks of matrices (E, r L, L), by chunks of so many positions."""

    def __init__(self, matrices: Array, batch_shape: torch.Size, cut: Cut, width: int) -> None:
        positions, place = np.unique(np.array(cut.positions, np.int64), return_inverse=True)
        self._all, self._batch, self._place = matrices, batch_shape, place
        self._cut = replace(cut, positions=tuple(map(int, positions)))
        self._matrices = [_Matrix(matrix, self._cut, width) for matrix in matrices]

    @property
    def error_bound(self) -> Tensor:  # pyright: ignore[reportIncompatibleVariableOverride]
        """δ ≥ |σ̂ − σ|, (..., P)."""
        return self._shaped([matrix.scale * (np.sqrt(matrix.off) + UNDERFLOW) for matrix in self._matrices])

    def norms(self) -> Tensor:
        """‖H_i‖_F, (..., P)."""
        return self._shaped([matrix.scale * np.sqrt(matrix.energies) for matrix in self._matrices])

    def counts(self, thresholds: Tensor) -> Counts:
        """#{σ > τ} for absolute thresholds (K,)."""
        return self._counted(thresholds, lambda matrix, tau: matrix.counts(tau), lambda exact: exact.counts(thresholds))

    def relative_counts(self, ratios: Tensor) -> Counts:
        """#{σ > ρ σ_1} for ratios (R,)."""
        return self._counted(
            ratios, lambda matrix, rho: matrix.relative_counts(rho), lambda exact: exact.relative_counts(ratios)
        )

    def entropies(self) -> tuple[Tensor, Tensor]:
        """Entropy-ESS and a bound on its error, both (..., P)."""
        limit, found = self._cut.limits.numpy(), list[tuple[Array, Array]]()
        for entry, matrix in enumerate(self._matrices):
            H, error, total = matrix.entropies()
            # Squares that are off by e in the Frobenius norm: Σ |√σ̂² − √σ²| ≤ r^¾ √e.
            share = limit**0.75 * np.sqrt(matrix.off) / np.where(total > 0, total, 1.0)
            error = error + share * (np.log(np.maximum(limit, 2)) + 1 - np.log(np.where(share > 0, share, 1.0)))
            ess = np.where(matrix.zero, 0, np.clip(np.exp(np.minimum(H, 20)), 1, limit))
            bound = np.where(matrix.zero | (limit == 1), 0, ess * np.expm1(np.minimum(error, 20)))
            # A flat spectrum has its rank as entropy-ESS, which the rule may pass by its error.
            rank = matrix.ranks(ess - np.floor(ess) <= bound)
            within = np.where(ess > rank, np.maximum(rank, ess - bound), ess)
            ess, bound = within, bound + ess - within
            wide = ~(bound <= _KEPT * ess)
            if wide.any():
                exact = self._exact(entry, wide).entropies()
                ess[wide], bound[wide] = (part.numpy()[0] for part in exact)
            found.append((ess, bound))
        return self._shaped([ess for ess, _ in found]), self._shaped([bound for _, bound in found])

    def _shaped(self, parts: list[npt.NDArray[np.generic]]) -> Tensor:
        """Answers of all matrices, (P, ...) each, at the positions of the cut."""
        stacked = np.stack(parts) if parts else np.zeros((0, len(self._cut.positions)))
        return torch.from_numpy(stacked[:, self._place]).reshape(*self._batch, len(self._place), *stacked.shape[2:])

    def _exact(self, entry: int, wanted: npt.NDArray[np.bool_]) -> ExactBlocks:
        """The blocks of one matrix at some positions, by `exact`."""
        matrix, r = self._all[entry : entry + 1], self._cut.readouts
        positions = tuple(i for i, here in zip(self._cut.positions, wanted, strict=True) if here)
        return ExactBlocks(
            lambda rows, columns: matrix[:, r * rows.start : r * rows.stop, columns],
            torch.Size((1,)),
            replace(self._cut, positions=positions),
        )

    def _counted(
        self,
        thresholds: Tensor,
        bounds: Callable[[_Matrix, Array], tuple[Places, Places]],
        exactly: Callable[[ExactBlocks], Counts],
    ) -> Counts:
        found = list[tuple[Places, Places, Places]]()
        for entry, matrix in enumerate(self._matrices):
            lower, upper = bounds(matrix, thresholds.numpy())
            count, undecided = lower.copy(), (lower != upper).any(1)
            if undecided.any():
                exact = exactly(self._exact(entry, undecided))
                for part, better in zip((count, lower, upper), (exact.count, exact.lower, exact.upper), strict=True):
                    part[undecided] = better.numpy()[0]
            found.append((count, lower, upper))
        if not found:
            none = torch.zeros((*self._batch, len(self._place), len(thresholds)), dtype=torch.int64)
            return Counts(none, none, none)
        return Counts(*(self._shaped(list(parts)) for parts in zip(*found, strict=True)))
