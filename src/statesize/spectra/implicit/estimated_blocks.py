"""Counts, entropies and norms of blocks that are known by an estimate each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from statesize.spectra.engine import Counts, HankelBlocks
from statesize.spectra.implicit.entropy_estimate import CONFIDENCE, EntropyEstimate


@dataclass(frozen=True, eq=False)
class Estimated:
    """What products told of one block H.

    Attributes:
        norm: ‖H‖_F, or an estimate.
        square: What ‖H‖_F² is at most, certainly or as probably as an interval holds.
        limit: min(rows, columns).
    """

    estimate: EntropyEstimate
    norm: float
    square: float
    limit: int

    @property
    def error_bound(self) -> float:
        """δ of every σ; all that is known of them where their squares are lost to underflow is that ‖H‖_F is more."""
        return self.estimate.space.error_bound if self.square else self.norm

    def count_above(self, threshold: float) -> tuple[int, int]:
        """The least and largest number of σ above a threshold."""
        space, exact, error = self.estimate.space, self.estimate.exact, self.error_bound
        if not self.norm:
            return 0, 0
        sigma = space.ritz if exact else space.nystrom
        least = int((sigma > threshold + error).sum())
        if threshold <= error:
            # Any of them may be above.
            return least, self.limit
        above = threshold - error
        if exact:
            return least, min(int((sigma > above).sum()), self.limit)
        rest = max(0.0, self.square - float(sigma.square().sum()))
        # H = P H + (I − P) H with the projection P on the space's image: by Weyl, σ² of the sum is above τ² as often as
        # that of the first part is above τ² − s² and that of the second above s², which is rest / s² times at most.
        shares = torch.linspace(0.05, 1.0, 20, dtype=torch.float64) * above**2
        apart = (sigma.square() > above**2 - shares[:, None]).sum(-1) + torch.floor(rest / shares)
        return least, max(least, int(apart.clamp(max=self.limit).min()))


class EstimatedBlocks(HankelBlocks):
    """The blocks of an operator that are known by products."""

    # The confidence level of the bounds.
    way = f"{CONFIDENCE:.0%}"

    def __init__(self, entries: Sequence[Sequence[Estimated]], batch_shape: torch.Size, positions: int) -> None:
        """Of each of P positions, for each entry of the flattened batch."""
        self._entries, self._shape = entries, (*batch_shape, positions)

    @property
    def error_bound(self) -> Tensor:  # pyright: ignore[reportIncompatibleVariableOverride]
        """δ of the singular values that are computed, (..., P)."""
        return self._gathered(lambda block: block.error_bound)

    def norms(self) -> Tensor:
        """‖H_i‖_F, (..., P)."""
        return self._gathered(lambda block: block.norm)

    def counts(self, thresholds: Tensor) -> Counts:
        """#{σ > τ} for absolute thresholds (K,), in the middle of bounds."""
        return self._counted(lambda block: 1.0, thresholds)

    def relative_counts(self, ratios: Tensor) -> Counts:
        """#{σ > ρ σ_1} for ratios (R,), in the middle of bounds."""
        return self._counted(lambda block: float(block.estimate.space.leading(1)[0].sum()), ratios)

    def entropies(self) -> tuple[Tensor, Tensor]:
        """The middle of each interval and half of its width, both (..., P)."""
        low = self._gathered(lambda block: block.estimate.interval.low)
        high = self._gathered(lambda block: block.estimate.interval.high)
        return (low + high) / 2, (high - low) / 2

    def _counted(self, scale: Callable[[Estimated], float], thresholds: Tensor) -> Counts:
        """Counts above thresholds (K,) times the scale of each block."""

        def bounds(block: Estimated) -> list[tuple[int, int]]:
            return [block.count_above(float(threshold) * scale(block)) for threshold in thresholds]

        lower, upper = self._gathered(bounds, len(thresholds), 2).to(torch.int64).unbind(-1)
        return Counts((lower + upper) // 2, lower, upper)

    def _gathered(self, value: Callable[[Estimated], object], *tail: int) -> Tensor:
        """Values of all blocks, (..., P, *tail)."""
        values = [[value(block) for block in entry] for entry in self._entries]
        return torch.tensor(values, dtype=torch.float64).reshape(*self._shape, *tail)
