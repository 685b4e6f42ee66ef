"""Operators of any rank: counts and entropies by chunks around tridiagonal cores, and relative counts to an accuracy."""

from __future__ import annotations

from functools import cached_property, partial

import torch
from torch import Tensor

from statesize.operators import Operator
from statesize.operators.validation import require_finite
from statesize.spectra.cut import Cut
from statesize.spectra.engine import Counts
from statesize.spectra.shifts.certified import CertifiedBlocks
from statesize.spectra.shifts.shared_thresholds import SharedThresholds, enclose_largest
from statesize.spectra.shifts.tridiagonal_chunks import TridiagonalChunks, tridiagonal_chunks

# How close bounds on σ_1 are for counts between bounds: everywhere, and where counts are still too far apart then.
_CLOSE, _CLOSER = 4e-2, 4e-4
# And for exact counts: by the power method, and by bisection where that does not come so close in so many steps.
_EXACT, _STEPS, _NEARLY_EXACT = 1e-8, 16, 1e-4


class TridiagonalBlocks(CertifiedBlocks):
    """The blocks of operators by tridiagonal chunks, of a cut that is not windowed."""

    def __init__(self, chunks: TridiagonalChunks, batch_shape: torch.Size, cut: Cut) -> None:
        super().__init__(chunks, batch_shape, cut, cut.length)
        self._chunks = chunks

    def relative_counts(self, ratios: Tensor, accuracy: float = 0.0) -> Counts:
        """#{σ > ρ σ_1} for ratios (R,); with an accuracy, the middle of bounds that are so close."""
        if not bool(self._wanted.any()) or not ratios.numel():
            return super().relative_counts(ratios, accuracy)
        if not accuracy:
            low, high = self._exact_largest
            return self._gathered([self._bracketed(rho * low, rho * high, float(rho)) for rho in ratios])
        low, high = self._close_largest
        found: list[tuple[Tensor, Tensor, Tensor]] = []
        for rho in ratios:
            thresholds = SharedThresholds(
                self._chunks, rho * low, rho * high, self._wanted, self._limit, self._error, accuracy
            )
            lower, upper = thresholds.bounds(partial(self._closer, rho))
            close = upper - lower <= (accuracy * upper).clamp(min=1)
            none = torch.zeros_like(lower)
            count, least, most = self._decided(
                rho * high, float(rho), torch.where(close, none, lower), torch.where(close, none, upper)
            )
            lower, upper = torch.where(close, lower, least), torch.where(close, upper, most)
            found.append((torch.where(close, (lower + upper) // 2, count), lower, upper))
        return self._gathered(found)

    @cached_property
    def _close_largest(self) -> tuple[Tensor, Tensor]:
        low, high = self._chunks.largest()
        high = torch.fmin(high, self._chunks.norm_bound()[:, None])
        return self._enclosed(low, torch.maximum(low, high), self._wanted, _CLOSE)

    @cached_property
    def _exact_largest(self) -> tuple[Tensor, Tensor]:
        low, high = self._close_largest
        least, most = self._chunks.largest_at(self._wanted, _EXACT, _STEPS)
        low = low.masked_scatter(self._wanted, torch.maximum(low[self._wanted], least))
        high = high.masked_scatter(self._wanted, torch.minimum(high[self._wanted], most))
        return self._enclosed(low, high, self._wanted, _NEARLY_EXACT)

    def _closer(self, rho: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor]:
        """ρ σ_1 between two numbers (N, b), which are closer together at positions of a mask from then on."""
        self._close_largest = self._enclosed(*self._close_largest, chosen, _CLOSER)
        return rho * self._close_largest[0], rho * self._close_largest[1]

    def _enclosed(self, low: Tensor, high: Tensor, chosen: Tensor, close: float) -> tuple[Tensor, Tensor]:
        # σ within the error of 0 are not looked for.
        return enclose_largest(self._chunks, low, high, chosen & (high > 4 * self._error), self._error, close)


def chunk_width(length: int) -> int:
    """Positions of a chunk, b: a power of 2 about a tenth of the sequence."""
    return 32 if length < 384 else 64


@torch.no_grad()
def tridiagonal_blocks(operator: Operator, cut: Cut, width: int | None = None) -> TridiagonalBlocks:
    """The blocks by chunks of T around tridiagonal cores; without gradients."""
    matrix = operator.dense()
    require_finite("T", matrix)
    b = width or chunk_width(cut.length)
    needed = torch.zeros(-(-cut.length // b), dtype=torch.bool)
    needed[torch.tensor(cut.positions, dtype=torch.int64) // b] = True
    chunks = tridiagonal_chunks(matrix.flatten(0, -3) if matrix.ndim > 2 else matrix[None], b, needed)
    return TridiagonalBlocks(chunks, operator.batch_shape, cut)
