"""Operators of any rank: counts and entropies by chunks around tridiagonal cores, and relative counts to an accuracy."""

from __future__ import annotations

import torch
from torch import Tensor

from statesize.operators import Operator
from statesize.operators.validation import require_finite
from statesize.spectra.cut import Cut
from statesize.spectra.engine import Counts
from statesize.spectra.shifts.certified import CertifiedBlocks
from statesize.spectra.shifts.shared_thresholds import SharedThresholds
from statesize.spectra.shifts.tridiagonal_chunks import TridiagonalChunks, tridiagonal_chunks

# How close bounds on σ_1 have to be for counts between bounds, where sampled ones are too far apart, and for exact ones.
_CLOSER, _CLOSEST = 4e-4, 1e-9


class TridiagonalBlocks(CertifiedBlocks):
    """The blocks of operators by tridiagonal chunks, of a cut that is not windowed."""

    def __init__(self, chunks: TridiagonalChunks, batch_shape: torch.Size, cut: Cut) -> None:
        super().__init__(chunks, batch_shape, cut, cut.length)
        self._chunks = chunks

    def relative_counts(self, ratios: Tensor, accuracy: float = 0.0) -> Counts:
        """#{σ > ρ σ_1} for ratios (R,); with an accuracy, the middle of bounds that are so close."""
        if not bool(self._wanted.any()) or not ratios.numel():
            return super().relative_counts(ratios, accuracy)
        low, high = self._chunks.largest()
        if not bool(torch.isfinite(high).all()):
            low, high = self._largest()
        if not accuracy:
            low, high = self._closer(low, high, self._wanted & (high > (1 + _CLOSEST) * low), _CLOSEST)
            return self._gathered([self._bracketed(rho * low, rho * high, float(rho)) for rho in ratios])
        found: list[tuple[Tensor, Tensor, Tensor]] = []
        for rho in ratios:
            thresholds = SharedThresholds(
                self._chunks, rho * low, rho * high, self._wanted, self._limit, self._error, accuracy
            )
            lower, upper = thresholds.bounds(lambda chosen, rho=rho: tuple(
                rho * part for part in self._closer(low, high, chosen, _CLOSER)))
            close = upper - lower <= (accuracy * upper).clamp(min=1)
            none = torch.zeros_like(lower)
            count, least, most = self._decided(
                rho * high, float(rho), torch.where(close, none, lower), torch.where(close, none, upper)
            )
            lower, upper = torch.where(close, lower, least), torch.where(close, upper, most)
            found.append((torch.where(close, (lower + upper) // 2, count), lower, upper))
        return self._gathered(found)

    def _closer(self, low: Tensor, high: Tensor, chosen: Tensor, close: float) -> tuple[Tensor, Tensor]:
        """Bounds on σ_1 (N, b), closer together at positions of a mask."""
        if bool(chosen.any()):
            least, most = self._chunks.largest_at(chosen, close)
            low = low.masked_scatter(chosen, torch.maximum(low[chosen], least))
            high = high.masked_scatter(chosen, torch.minimum(high[chosen], most))
        return low, high


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
