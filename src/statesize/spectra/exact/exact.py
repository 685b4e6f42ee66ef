"""Every singular value at chosen positions from Gram matrices that only grow, and from blocks that leave answers open.

H_iᵀH_i of an earlier position is a corner of that of a later one plus what the rows between the two add; where rows are
the shorter side, H_iH_iᵀ grows alike. So each entry of T is multiplied once, and each position takes one call for
eigenvalues (docs/appendix/engine-mathematics.md, "Gram matrices").
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import TypeAlias, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from statesize.operators import Operator, Recurrence
from statesize.spectra.cut import Cut
from statesize.spectra.engine import (
    DOUBLE,
    SECONDS,
    Counts,
    Footprint,
    HankelBlocks,
)
from statesize.spectra.exact.dense import DenseEngine, block_spectra, forming_seconds, largest_state
from statesize.spectra.exact.recurrences import factor_seconds, recurrence_spectrum, stretch_numbers
from statesize.spectra.spectrum import UNDERFLOW, effective_rank, entropy_bound, frobenius_norm

Read: TypeAlias = Callable[[slice, slice], npt.NDArray[np.float64]]
_STRIP = 1024  # positions of the longer side that one product takes
# How far a product with its eigenvalues may be off in the Frobenius norm, in units of eps ‖H‖_F²: met are 21, where
# all entries are equal, and so the errors of all terms in the chains of 256 that OpenBLAS adds up, below 3 else.
_CHAINS = 32
# Bound of an entropy, relative to it, beyond which its block is decomposed; and between which shares of σ_1 the
# smallest σ has to lie, or else be taken for round-off, so that entropies are known to 1e-9 where no σ is below 1e-7
# σ_1: without it, at most 5e-10 was met above the second share, and 3e-6 below.
_CLOSE, _SMALLEST = 2e-4, (9e-8, 1.5e-7)
# Tensors that are made of a stretch of chunks.
_STRETCH = 12


@dataclass(frozen=True)
class ExactEngine(DenseEngine):
    """Every singular value at chosen positions, with a bound on the error of each.

    By square-root factors of a recurrence whose state is smaller than its blocks, else by eigenvalues of Gram matrices.

    Attributes:
        by_states: Which of the two; None for the faster.
    """

    by_states: bool | None = None

    name = "exact"
    copies = 16
    block_bytes = 2**23
    converts = True

    def _by_states(self, operator: Operator, cut: Cut) -> bool:
        """Whether factors of a recurrence take less time than T and its Gram matrices."""
        if self.by_states is not None or not isinstance(operator, Recurrence):
            return bool(self.by_states)
        if not 2 * largest_state(operator) < min(cut.past or cut.length, cut.future or cut.length):
            return False
        if cut.length**2 > self.whole:
            return True
        return factor_seconds(operator, cut) < forming_seconds(operator) + SECONDS * exact_operations(cut)

    def settled(self, operator: Operator, cut: Cut) -> ExactEngine:
        """See `Engine.settled`."""
        return replace(self, by_states=self._by_states(operator, cut))

    @torch.no_grad()
    def blocks(self, operator: Operator, cut: Cut) -> HankelBlocks:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The blocks; without gradients."""
        if isinstance(operator, Recurrence):
            if self._by_states(operator, cut):
                return recurrence_spectrum(operator, cut)
            operator = operator.to(dtype=torch.float64)
        operator = operator if operator.device.type == "cpu" else operator.to(device="cpu")
        shape = operator.batch_shape
        flat = partial(torch.Tensor.flatten, end_dim=-3) if shape else partial(torch.Tensor.unsqueeze, dim=0)
        return ExactBlocks(self.reader(operator, cut, lambda part: flat(part.detach()).numpy()), shape, cut)

    def seconds(self, operator: Operator, cut: Cut) -> float:
        """See `Engine.seconds`."""
        if self._by_states(operator, cut):
            return factor_seconds(operator, cut)  # pyright: ignore[reportArgumentType]
        return forming_seconds(operator) + SECONDS * exact_operations(cut)

    def footprint(self, operator: Operator, cut: Cut) -> Footprint:
        """Factors at every position with a stretch of chunks, or what the definition holds."""
        if not self._by_states(operator, cut):
            return super().footprint(operator, cut)
        n, recurrence = largest_state(operator), cast("Recurrence", operator)
        held = (4 * len(cut.positions) + 130) * n**2 + _STRETCH * stretch_numbers(recurrence)
        return Footprint((2 if recurrence.is_complex else 1) * DOUBLE * held)


class ExactBlocks(HankelBlocks):
    """The blocks by eigenvalues; those of entries and positions that leave an answer open are decomposed."""

    def __init__(self, read: Read, batch_shape: torch.Size, cut: Cut) -> None:
        self._read, self._batch, self._cut, self._limit = read, batch_shape, cut, cut.limits
        shape = batch_shape.numel(), len(cut.positions), max(cut.largest_rank, 1)
        squares, sums = np.zeros(shape), np.zeros(shape[1])
        place_of = {position: place for place, position in enumerate(cut.positions)}
        with np.errstate(invalid="ignore", over="ignore"):
            for position, count, gram in _grams(read, cut) if batch_shape.numel() else ():
                place = place_of[position]
                sums[place] = count
                try:
                    squares[:, place, : gram.shape[-1]] = np.linalg.eigvalsh(gram)[:, ::-1]
                except np.linalg.LinAlgError:  # squares overflowed
                    squares[:, place] = np.nan
        places = [place_of[position] for position in cut.positions]
        squares, sums = squares[:, places], sums[places]
        self._decomposed = torch.zeros(shape[:2], dtype=torch.bool)
        known = from_squares(torch.from_numpy(squares).clamp_(min=0), torch.from_numpy(sums)[:, None], self._limit)
        self._values, self._errors, self._kept, self._moved = known
        # Where squares over- or underflow, nothing is known.
        self._decompose(~(self._values[..., 0] > self._errors[..., 0]))

    @property
    def error_bound(self) -> Tensor:  # pyright: ignore[reportIncompatibleVariableOverride]
        """δ ≥ |σ̂ − σ|, (..., P)."""
        return self._shaped(self._errors.amax(-1))

    def norms(self) -> Tensor:
        """‖H_i‖_F, (..., P)."""
        return self._shaped(frobenius_norm(self._values[..., None]))

    def counts(self, thresholds: Tensor) -> Counts:
        """#{σ > τ} for absolute thresholds (K,)."""
        return self._settled(lambda: (thresholds, torch.zeros(1)))

    def relative_counts(self, ratios: Tensor) -> Counts:
        """#{σ > ρ σ_1} for ratios (R,)."""
        return self._settled(lambda: (ratios * self._values[..., :1], ratios * self._errors[..., :1]))

    def entropies(self) -> tuple[Tensor, Tensor]:
        """Entropy-ESS and a bound on its error, both (..., P)."""
        while True:
            alive = self._values[..., 0] > self._errors[..., 0]
            entropy = torch.where(alive, effective_rank(self._kept).clamp(min=1), 0.0)
            bound = entropy_bound(self._kept, self._moved / self._kept.shape[-1], entropy)
            last = (self._limit - 1).clamp(min=0).expand(len(alive), -1)[..., None]
            share = self._values.gather(-1, last)[..., 0] / self._values[..., 0].clamp(min=UNDERFLOW)
            dropped = self._kept.gather(-1, last)[..., 0] == 0
            graded = (share > _SMALLEST[0]) & (dropped | (share < _SMALLEST[1]))
            wanted = ((bound > _CLOSE * entropy) | graded) & ~self._decomposed
            if not bool(wanted.any()):
                return self._shaped(entropy), self._shaped(bound)
            self._decompose(wanted)

    def singular_values(self) -> Tensor:
        """σ̂ by decompositions, (..., P, r), descending, zero-padded."""
        self._decompose(torch.ones_like(self._decomposed))
        return self._shaped(self._values[..., : self._cut.largest_rank])

    def _shaped(self, part: Tensor) -> Tensor:
        return part.reshape(*self._batch, *part.shape[1:])

    def _decompose(self, wanted: Tensor) -> None:
        """Take singular values of the blocks themselves, of entries and positions (E, P) that are not yet done."""
        missing = wanted & ~self._decomposed
        self._decomposed = self._decomposed | missing
        for place in map(int, missing.any(0).nonzero()):
            entries = missing[:, place].nonzero().flatten()
            block = torch.from_numpy(self._read(*self._cut.reach(self._cut.positions[place])))[entries, None]
            for part in (self._values, self._kept, self._errors, self._moved):
                part[entries, place] = 0
            # A head of zeros takes no decomposition.
            holds = block.ne(0).flatten(1).any(-1)
            entries, block = entries[holds], block[holds]
            if len(entries):
                spectrum = block_spectra([block], self._limit[place : place + 1], block[:, 0, 0, :0])
                n = spectrum.values.shape[-1]
                self._values[entries, place, :n] = self._kept[entries, place, :n] = spectrum.values[:, 0]
                self._errors[entries, place] = spectrum.error_bound
                self._moved[entries, place] = n * spectrum.error_bound[:, 0]

    def _settled(self, thresholds: Callable[[], tuple[Tensor, Tensor]]) -> Counts:
        """#{σ > τ} from τ (E, P, K) and how far it may be off; once more where blocks are decomposed for it."""
        while True:
            at, off = (part.expand(*self._moved.shape, -1)[..., None] for part in thresholds())
            sigma, error = self._values[..., None, :], self._errors[..., None, :]
            above = sigma > at, sigma - error > at + off, sigma + error > at - off
            count, lower, upper = (part.sum(-1).minimum(self._limit[:, None]) for part in above)
            undecided = (upper > lower).any(-1) & ~self._decomposed
            if not bool(undecided.any()):
                return Counts(*map(self._shaped, (count, lower, upper)))
            self._decompose(undecided)


def from_squares(squares: Tensor, sums: Tensor, limit: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """σ̂ from σ̂² (..., P, r), its errors, σ̂ without those that may be round-off, and what entropies may miss, (..., P).

    Args:
        squares: Eigenvalues, descending.
        sums: How many matrices were added up, (P, 1).
        limit: How many σ each block has, (P,).

    Returns:
        All four, the first three of the shape of the squares.
    """
    # By e HᵀH may be off in the Frobenius norm, each addition within eps / 2 of ‖H‖_F². So Σ (σ̂² − σ²)² ≤ e² (Hoffman
    # and Wielandt), and |σ̂ − σ| = |σ̂² − σ²| / (σ̂ + σ).
    e = torch.finfo(squares.dtype).eps * (_CHAINS + sums / 2) * squares.sum(-1, keepdim=True)
    clear, values = squares > e, squares.sqrt()
    errors = torch.minimum(e.sqrt(), e / values.clamp(min=UNDERFLOW)) + UNDERFLOW
    kept = values.masked_fill(~clear, 0)
    # All errors together: e √Σσ̂⁻² at most of those above, of k others Σ √|σ̂² − σ²| ≤ k^¾ √e.
    far = e * (1 / values).masked_fill(~clear, 0).square().sum(-1, keepdim=True).sqrt()
    near = (limit - clear.sum(-1)).clamp(min=0)[..., None] ** 0.75 * e.sqrt()
    return values, errors, kept, (far + near).squeeze(-1) + (values - kept).sum(-1) + limit * UNDERFLOW


def exact_operations(cut: Cut) -> float:
    """About how many operations of products of matrices take as long, for one batch entry; from shapes alone."""
    r, n, grown = cut.readouts, cut.limits.double(), 0
    for _, rows, columns, tall, _ in _plan(cut):
        height, width = r * (rows.stop - rows.start), columns.stop - columns.start
        grown += height * width * (width if tall else height)
    # Half of each product. Eigenvalues run at the speed of products where matrices are large.
    return 0.6 * grown + float((0.8 * n**3 + 470 * n**2 + 5e5).sum())


def _plan(cut: Cut) -> Iterator[tuple[int, slice, slice, bool, bool]]:
    """Each position, rows and columns that its Gram matrix gains, and whether columns are fewer, and it begins anew."""
    L, positions = cut.length, sorted(set(cut.positions))
    if cut.windowed:
        for i in positions:
            rows, columns = cut.shape(i)
            yield i, *cut.reach(i), columns <= rows, True
        return
    early = [i for i in positions if i <= cut.readouts * (L - i)]
    for last, i in pairwise([L, *reversed(early)]):
        yield i, slice(i, last), slice(0, i), True, last == L
    for last, i in pairwise([0, *positions[len(early) :]]):
        yield i, slice(i, L), slice(last, i), False, last == 0


def _grams(read: Read, cut: Cut) -> Iterator[tuple[int, int, npt.NDArray[np.float64]]]:
    """Each position with the Gram matrix of the shorter side of its block, (E, n, n), and how many were added to it."""
    gram, count = np.zeros(()), 0
    for i, rows, columns, tall, anew in _plan(cut):
        side, n = (rows, i) if tall else (columns, cut.readouts * (cut.length - i))
        corner, count = None if anew else gram[:, :n, :n] if tall else gram[:, -n:, -n:], 0 if anew else count + 1
        for first in range(side.start, side.stop, _STRIP):
            strip = slice(first, min(first + _STRIP, side.stop))
            X = read(strip, columns).swapaxes(-2, -1) if tall else read(rows, strip)
            # Numpy makes half of it, as it sees a matrix times its own transpose.
            gram, count = X @ X.swapaxes(-2, -1), count + (first > side.start)
            if corner is not None:
                gram += corner
            corner = gram
        yield i, count, gram
