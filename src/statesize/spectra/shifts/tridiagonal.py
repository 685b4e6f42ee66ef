"""Operators of any rank: counts and entropies by chunks around tridiagonal cores, as fast as a few products.

Absolute counts and entropies as every engine by eliminations; counts at relative tolerances exactly, from bounds on σ_1
of each position, or between bounds as close as requested, from thresholds that neighbouring positions share
(docs/appendix/engine-mathematics.md, "Tridiagonal cores" and "Relative tolerances of attention").
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch

from statesize.check import require_finite
from statesize.operators import Operator, Recurrence, Shared
from statesize.spectra.cut import Cut
from statesize.spectra.engine import DOUBLE, FALLBACK_BYTES, RELATIVE, Engine, Footprint
from statesize.spectra.exact.dense import SMALL
from statesize.spectra.exact.exact import exact_operations
from statesize.spectra.shifts.certified import CertifiedBlocks
from statesize.spectra.shifts.tridiagonal_chunks import TridiagonalChunks, tridiagonal_chunks

# Shifts that entropies and exact counts at relative tolerances take on average, and what calls cost where matrices are
# small, in operations; measured.
_SHIFTS_OF_ENTROPY, _SHIFTS_OF_EXACT_COUNTS, _CALLS, _EXACT_CALLS = 10, 40, 1.5e8, 8e7
# Time of these operations, in that of products; measured beside `exact` from 128 to 2,048 positions.
_SPEED = 0.65
# Shifts that all outputs between bounds take in heads of a language model, from 25 to 57 of 1,024 tokens.
_SHIFTS_OF_DEFAULTS = 30
# How far beside a threshold its inertia is tried first, relative to it: some ten times the usual round-off, as
# singular values of a position that is undecided cost more than another evaluation of its chunk.
_FIRST_GAP = 1e-7


@dataclass(frozen=True)
class TridiagonalEngine(Engine):
    """Counts and entropies of any operator, whatever its rank, from a tridiagonal matrix for each chunk of positions.

    Attributes:
        width: Positions of a chunk, a power of 2 from 16 on, or 8 where a position has an odd number of rows; None for
            the fastest.
    """

    width: int | None = None

    name = "tridiagonal"
    outputs = frozenset(("counts", "entropy"))
    works_on = (Operator, Shared)
    # T is larger than the state of a recurrence.
    slower_on = (Recurrence,)

    def slower_reason(self, operator: Operator, cut: Cut, outputs: tuple[str, ...]) -> str | None:
        """Where singular values of the requested positions take fewer operations."""
        if cut.largest_rank() <= SMALL:
            return f"takes longer for blocks of at most {SMALL} rows or columns than their singular values"
        exact = RELATIVE in outputs
        shifts = _SHIFTS_OF_ENTROPY * ("entropy" in outputs) + 2 * ("counts" in outputs)
        shifts += _SHIFTS_OF_EXACT_COUNTS * exact
        own = _SPEED * (_CALLS + _EXACT_CALLS * exact + self._operations(cut, shifts, self._width(cut)))
        plain = exact_operations(cut)
        return None if own < plain else f"takes {own:.1g} operations, the singular values take {plain:.1g}"

    def _operations(self, cut: Cut, shifts: int, b: int) -> float:
        """About how many operations of products of matrices take as long, for one batch entry; from shapes alone."""
        chunks, r = -(-cut.length // b), cut.readouts
        reached = {position // b for position in cut.positions}
        cores = [min(k, r * (chunks - 1 - k)) * b for k in reached]
        # Gram matrices of all chunks, at a third of the speed of products; of those that are requested cores and
        # borders, at half of it.
        operations = 1.5 * r * cut.length**3 + sum(3 * p**3 + 4 * (r + 1) * p**2 * b for p in cores)
        return operations + shifts * sum(p * ((r + 1) * b) ** 2 + 0.6 * ((r + 1) * b) ** 3 for p in cores)

    def _width(self, cut: Cut) -> int:
        """Positions of a chunk, b: a power of 2 about a tenth of the sequence, fewer where each has several rows."""
        if self.width:
            return self.width
        # Cores of 8 positions have borders that fill two vectors only where r is odd.
        if cut.length < 512 and cut.readouts % 2:
            return 8
        if cut.readouts == 1:
            return 16 if cut.length < 768 else 32 if cut.length < 1536 else 64
        return min((16, 32, 64), key=lambda b: self._operations(cut, _SHIFTS_OF_DEFAULTS, b))

    def forms_whole(self, cut: Cut) -> bool:
        """See `Engine.forms_whole`."""
        return True

    @torch.no_grad()
    def blocks(self, operator: Operator, cut: Cut) -> CertifiedBlocks:
        """The blocks by chunks of T; without gradients."""
        matrix = operator.operator.dense() if isinstance(operator, Shared) else operator.dense()[..., None, :, :]
        require_finite("T", matrix)
        matrix = (matrix.flatten(0, -4) if matrix.ndim > 3 else matrix[None]).detach()

        def chunks(b: int) -> TridiagonalChunks:
            needed = torch.zeros(-(-cut.length // b), dtype=torch.bool)
            needed[torch.tensor(cut.positions, dtype=torch.int64) // b] = True
            return tridiagonal_chunks(matrix, b, needed)

        # Many shifts pay for twice as many cores, around which each costs a quarter.
        b = self._width(cut)
        half = b if self.width else max(b // 2, 8 if cut.readouts % 2 else 16)
        given = operator.batch_shape, cut, cut.length
        return CertifiedBlocks(partial(chunks, b), *given, first_gap=_FIRST_GAP, for_several=partial(chunks, half))

    def footprint(self, operator: Operator, cut: Cut) -> Footprint:
        """T with its copies, Gram matrices and the borders of all chunks."""
        return Footprint(DOUBLE * 5 * cut.readouts * cut.length**2, FALLBACK_BYTES)
