"""Operators of any rank: counts and entropies by chunks around tridiagonal cores, as fast as a few products.

Absolute counts and entropies as every engine by eliminations; counts at relative tolerances exactly, from bounds on σ_1
of each position, or between bounds as close as asked, from thresholds that neighbouring positions share
(docs/engines.md, "Tridiagonal cores" and "Relative tolerances of attention").
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from statesize.check import require_finite
from statesize.operators import Operator, Recurrence, Shared
from statesize.spectra.cut import Cut
from statesize.spectra.engine import DOUBLE, FALLBACK_BYTES, RELATIVE, Counts, Engine
from statesize.spectra.exact.dense import DenseEngine
from statesize.spectra.shifts.certified import CertifiedBlocks, gathered
from statesize.spectra.shifts.groups import Groups
from statesize.spectra.tridiagonal.chunks import TridiagonalChunks, tridiagonal_chunks
from statesize.spectra.tridiagonal.shared_thresholds import SharedThresholds, enclose_largest

# How close bounds on σ_1 are for counts between bounds: everywhere, and how many times closer each time that counts
# are still too far apart then, down to the last number.
_CLOSE, _CLOSER, _CLOSEST = 1e-1, 6.0, 4e-4
# And for exact counts: by the power method, and by bisection where that does not come so close in so many steps.
_EXACT, _STEPS, _NEARLY_EXACT = 1e-8, 16, 1e-4
# Shifts that an entropy takes on average, and what calls cost where matrices are small, in operations; measured.
_SHIFTS_OF_ENTROPY, _CALLS, _EXACT_CALLS = 10, 1.5e8, 5e8
# How far beside a threshold its inertia is tried first, relative to it: some ten times the usual round-off, as
# singular values of a position that is undecided cost more than another evaluation of its chunk.
_FIRST_GAP = 1e-7


@dataclass(frozen=True)
class TridiagonalEngine(Engine):
    """Counts and entropies of any operator, whatever its rank, from a tridiagonal matrix for each chunk of positions.

    Attributes:
        width: Positions of a chunk, a power of 2 from 16 on; None for the fastest.
    """

    width: int | None = None

    name = "tridiagonal"
    outputs = frozenset(("counts", "entropy"))
    cost = "O(L³)"

    def supports(self, operator: Operator) -> bool:
        """Every operator."""
        return True

    def defers(self, operator: Operator, cut: Cut, outputs: tuple[str, ...]) -> str | None:
        """Where a state is smaller than T, or singular values of the positions asked take fewer operations."""
        if isinstance(operator, Recurrence):
            return "works on T itself, which is larger than the state of a recurrence"
        ratio = self.operations(cut, outputs) / max(1.0, DenseEngine().operations(cut))
        return None if ratio < 1 else f"takes {ratio:.1f} times as many operations as the singular values"

    def operations(self, cut: Cut, outputs: tuple[str, ...]) -> float:
        """About how many operations of products of matrices take as long, for one batch entry; from shapes alone."""
        return self._operations(cut, outputs, self._width(cut))

    def _operations(self, cut: Cut, outputs: tuple[str, ...], b: int) -> float:
        chunks, r = -(-cut.length // b), cut.readouts
        asked = {position // b for position in cut.positions}
        cores = [min(k, r * (chunks - 1 - k)) * b for k in asked]
        # Gram matrices of all chunks; cores and borders of those that are asked, at half the speed of products.
        operations = _CALLS + r * cut.length**3 / 2 + sum(3 * p**3 + 4 * (r + 1) * p**2 * b for p in cores)
        shifts = _SHIFTS_OF_ENTROPY * ("entropy" in outputs) + 2 * ("counts" in outputs)
        if RELATIVE in outputs:
            # About one evaluation and 20 products with a vector for each position.
            shifts += len(cut.positions) / max(1, len(asked))
            operations += _EXACT_CALLS + sum(80 * cut.rows(i) * cut.columns(i) for i in cut.positions)
        return operations + shifts * sum(p * ((r + 1) * b) ** 2 + 3 * (r * b) ** 3 for p in cores)

    def _width(self, cut: Cut) -> int:
        """Positions of a chunk, b: a power of 2 about a tenth of the sequence, fewer where each has several rows."""
        if self.width or cut.readouts == 1:
            return self.width or (32 if cut.length < 768 else 64)
        return min((16, 32, 64), key=lambda b: self._operations(cut, ("counts", "entropy"), b))

    @torch.no_grad()
    def blocks(self, operator: Operator, cut: Cut) -> TridiagonalBlocks:
        """The blocks by chunks of T; without gradients."""
        matrix = operator.operator.dense() if isinstance(operator, Shared) else operator.dense()[..., None, :, :]
        require_finite("T", matrix)
        b = self._width(cut)
        needed = torch.zeros(-(-cut.length // b), dtype=torch.bool)
        needed[torch.tensor(cut.positions, dtype=torch.int64) // b] = True
        chunks = tridiagonal_chunks(matrix.flatten(0, -4) if matrix.ndim > 3 else matrix[None], b, needed)
        return TridiagonalBlocks(chunks, operator.batch_shape, cut)

    def footprint(self, operator: Operator, cut: Cut) -> int:
        """T with its copies, Gram matrices and the borders of all chunks."""
        return DOUBLE * 5 * cut.readouts * cut.length**2

    def shared_footprint(self, operator: Operator, cut: Cut) -> int:
        """Singular values of what the eliminations leave unresolved."""
        return FALLBACK_BYTES


class TridiagonalBlocks(CertifiedBlocks):
    """The blocks of operators by tridiagonal chunks, of a cut that is not windowed."""

    def __init__(self, chunks: TridiagonalChunks, batch_shape: torch.Size, cut: Cut) -> None:
        super().__init__(lambda: chunks, batch_shape, cut, cut.length, first_gap=_FIRST_GAP)
        self._chunks = chunks

    def relative_counts(self, ratios: Tensor, accuracy: float = 0.0) -> Counts:
        """#{σ > ρ σ_1} for ratios (R,); with an accuracy, the middle of bounds that are so close, or 1 apart."""
        groups = self._groups(self._for_counts)
        if not bool(groups.wanted.any()) or not ratios.numel():
            return super().relative_counts(ratios, accuracy)
        if accuracy:
            return gathered(groups, self._between(groups, ratios, accuracy))
        low, high = self._exact_largest
        return gathered(groups, [groups.counts(rho * low, rho * high, float(rho)) for rho in ratios])

    def _between(self, groups: Groups, ratios: Tensor, accuracy: float) -> list[tuple[Tensor, Tensor, Tensor]]:
        """Counts above each ρ σ_1, (N, b), with bounds that are close, from singular values where that fails."""
        # All ratios at once: their groups in a row, (R · N, b).
        several = ratios.numel()
        every = torch.arange(groups.limit.shape[0], device=ratios.device).repeat(several)
        rho = ratios.repeat_interleave(groups.limit.shape[0])[:, None]
        wanted, limit, error = (part.repeat(several, 1) for part in (groups.wanted, groups.limit, groups.error))
        low, high = (rho * part[every] for part in self._close_largest)
        shared = SharedThresholds(self._chunks.at(every), low, high, wanted, limit, error, accuracy)

        def closer(chosen: Tensor) -> tuple[Tensor, Tensor]:
            asked = chosen.reshape(several, *groups.limit.shape).any(0)
            low, high = self._close_largest
            close = float((high / low)[asked & (low > 0)].nan_to_num(posinf=1.0).max()) - 1
            self._close_largest = low, high = self._enclosed(low, high, asked, max(_CLOSEST, close / _CLOSER))
            return rho * low[every], rho * high[every]

        bounds = [part.chunk(several) for part in shared.bounds(closer)]
        largest = self._close_largest[1]
        return [
            _resolved(groups, rho * largest, float(rho), least, most, accuracy)
            for rho, least, most in zip(ratios, *bounds, strict=True)
        ]

    @cached_property
    def _close_largest(self) -> tuple[Tensor, Tensor]:
        low, high = self._chunks.largest()
        high = torch.fmin(high, self._chunks.norm_bound()[:, None])
        return self._enclosed(low, torch.maximum(low, high), None, _CLOSE)

    @cached_property
    def _exact_largest(self) -> tuple[Tensor, Tensor]:
        low, high = self._close_largest
        wanted = self._groups(self._for_counts).wanted
        least, most = self._chunks.largest_at(wanted, _EXACT, _STEPS)
        low = low.masked_scatter(wanted, torch.maximum(low[wanted], least))
        high = high.masked_scatter(wanted, torch.minimum(high[wanted], most))
        return self._enclosed(low, high, None, _NEARLY_EXACT)

    def _enclosed(self, low: Tensor, high: Tensor, chosen: Tensor | None, close: float) -> tuple[Tensor, Tensor]:
        groups = self._groups(self._for_counts)
        # σ within the error of 0 are not looked for.
        large = groups.wanted & (high > 4 * groups.error)
        return enclose_largest(
            self._chunks, low, high, large if chosen is None else large & chosen, groups.error, close
        )


def _resolved(
    groups: Groups, threshold: Tensor, ratio: float, lower: Tensor, upper: Tensor, accuracy: float
) -> tuple[Tensor, Tensor, Tensor]:
    """The middle of bounds (N, b) that are close enough; where they are not, singular values take their place."""
    close = upper - lower <= (accuracy * upper).clamp(min=1)
    none = torch.zeros_like(lower)
    count, least, most = groups.resolve(
        threshold, ratio, torch.where(close, none, lower), torch.where(close, none, upper)
    )
    lower, upper = torch.where(close, lower, least), torch.where(close, upper, most)
    return torch.where(close, (lower + upper) // 2, count), lower, upper
