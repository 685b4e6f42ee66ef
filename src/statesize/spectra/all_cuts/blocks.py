"""Counts and entropies at all cuts, in a few times the time of products of matrices.

The positions of a chunk share a tridiagonal core, beside which each threshold costs one elimination. What singular
values within round-off of a threshold leave open goes to `exact`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from statesize.parallel.threads import lapack
from statesize.spectra.all_cuts.chunks import cores_of
from statesize.spectra.all_cuts.eliminations import (
    Array,
    Cores,
    Flags,
    Places,
    count_above,
    energies,
    largest_values,
    log_determinants,
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
# Shifts of entropies, and further ones where these leave too much open.
_SHIFTS, _MORE = 16, 1
# Error of an entropy at which no further shifts are taken, relative to the entropy-ESS.
_CLOSE = 2e-4


class _Matrix:
    """One matrix (r L, L) at ascending positions."""

    def __init__(self, matrix: Array, cut: Cut, width: int) -> None:
        largest = float(np.abs(matrix).max(initial=0))
        self.scale = float(np.exp2(np.floor(np.log2(largest)))) if largest else 1.0
        self._limit, r = cut.limits().numpy(), cut.readouts
        filled = -cut.length % width
        matrix = np.pad(matrix / self.scale, ((0, r * filled), (0, filled)))
        early = [i for i in cut.positions if i <= r * (cut.length - i)]
        late = [cut.length + filled - i for i in reversed(cut.positions[len(early) :])]
        self._cores = [cores_of(matrix, r, 1, early, width)]
        if late:
            # H_{L−i} of Tᵀ with rows and columns in reverse order is H_iᵀ with both in reverse order.
            turned = np.ascontiguousarray(matrix[::-1, ::-1].T)
            self._cores.append(cores_of(turned, 1, r, late, width))
        self.energies = self._everywhere(energies)
        # As far as σ² may be off: squares of what is small beside the largest entry are lost.
        self.off = _GRAM * _EPS * self.energies + UNDERFLOW**2
        # The first entry of each row that is not 0, and of all rows from it on, tell which blocks are 0.
        first = np.where((matrix != 0).any(1), (matrix != 0).argmax(1), len(matrix))
        at = np.array(cut.positions, np.int64)
        self.zero = np.minimum.accumulate(first[::-1])[::-1][r * at] >= at

    def _everywhere(self, ask: Callable[[Cores, Array], object]) -> Array:
        """What is asked at all positions, (P,)."""
        answers = [np.zeros(len(cores.chunk)) for cores in self._cores]
        for cores, answer in zip(self._cores, answers, strict=True):
            ask(cores, answer)
        return self._joined(answers)

    def _joined(self, parts: list[Array]) -> Array:
        return np.concatenate([parts[0], *(part[::-1] for part in parts[1:])])

    def _split(self, part: Array) -> list[Array]:
        """Numbers at all positions in the order of the cores."""
        early = len(self._cores[0].chunk)
        return [part[:early], part[early:][::-1]][: len(self._cores)]

    def counts(self, thresholds: Array) -> tuple[Places, Places]:
        """The least and largest #{σ > τ} for thresholds (K,), (P, K) each."""
        tau = np.broadcast_to(thresholds / self.scale, (len(self._limit), len(thresholds)))
        return self._between(tau, tau)

    def relative_counts(self, ratios: Array) -> tuple[Places, Places]:
        """The least and largest #{σ > ρ σ_1} for ratios (R,), (P, R) each."""
        top = self._everywhere(largest_values)[:, None]
        lower, upper = self._between(top * ratios, top * (1 + 4 * _GAP) * ratios)
        # σ_1 is what was found only if no σ is larger.
        above, sure = self._above(top * (1 + 2 * _GAP))
        found = (sure & (above == 0)) | self.zero[:, None]
        return np.where(found, lower, 0), np.where(found, upper, self._limit[:, None])

    def _between(self, low: Array, high: Array) -> tuple[Places, Places]:
        """The least and largest #{σ > τ} of thresholds between two numbers, (P, K) each."""
        with np.errstate(divide="ignore", invalid="ignore"):
            shifts = np.concatenate([low - self._gap(low), high + self._gap(high)], 1)
        count, sure = self._above(shifts)
        (most, least), (below, above) = (np.split(part, 2, 1) for part in (count, sure))
        most = np.where(below, most, self._limit[:, None])
        return np.where(above, least, 0), np.where(self.zero[:, None] & (low >= 0), 0, most)

    def _gap(self, tau: Array) -> Array:
        """How far beside thresholds (P, K) counts are taken: for the Gram matrices once, for eliminations twice."""
        return _GAP * tau + 3 * self.off[:, None] / tau

    def _above(self, shifts: Array) -> tuple[Places, Flags]:
        """#{σ > τ} for shifts (P, K), and whether round-off leaves it within the gap beside them."""
        usable = (shifts > 0) & np.isfinite(shifts)
        shifts = np.where(usable, shifts, 1.0)
        counts, sizes = list[Places](), list[Array]()
        for cores, part in zip(self._cores, self._split(shifts), strict=True):
            counts.append(np.zeros(part.shape, np.int64))
            sizes.append(np.zeros(part.shape))
            count_above(cores, np.ascontiguousarray(part), counts[-1], sizes[-1])
        sure = ROUND_OFF * _EPS * self._joined(sizes) + self.off[:, None] / shifts <= self._gap(shifts)
        return self._joined(counts), usable & sure  # pyright: ignore[reportArgumentType, reportReturnType]

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
        more = np.zeros((len(energy), len(steps)))
        log_determinants(cores, wanted, top[:, None] * steps, more)
        logarithms = np.concatenate([logarithms, more], 1)
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
        with lapack().block():
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
        limit, found = self._cut.limits().numpy(), list[tuple[Array, Array]]()
        for entry, matrix in enumerate(self._matrices):
            H, error, total = matrix.entropies()
            # Squares that are off by e in the Frobenius norm: Σ |√σ̂² − √σ²| ≤ r^¾ √e.
            share = limit**0.75 * np.sqrt(matrix.off) / np.where(total > 0, total, 1.0)
            error = error + share * (np.log(np.maximum(limit, 2)) + 1 - np.log(np.where(share > 0, share, 1.0)))
            ess = np.where(matrix.zero, 0, np.clip(np.exp(H), 1, limit))
            bound = np.where(matrix.zero | (limit == 1), 0, ess * np.expm1(np.minimum(error, 20)))
            wide = ~(bound <= 1e-3 * ess)
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
