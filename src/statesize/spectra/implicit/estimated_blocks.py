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
    """What products told of one block H."""

    estimate: EntropyEstimate
    norm: float  # ‖H‖_F, or an estimate
    square: float  # at least ‖H‖_F², certainly or as probably as an interval holds
    limit: int  # min(rows, columns)

    @property
    def error_bound(self) -> float:
        """δ of every σ; all that is known of them where their squares are lost to underflow is that ‖H‖_F is more."""
        return self.estimate.space.error_bound if self.square else self.norm

    def count_above(self, threshold: float) -> tuple[int, int]:
        """The least and largest number of σ above a threshold."""
        space, exact, above = self.estimate.space, self.estimate.exact, threshold - self.error_bound
        sigma = space.ritz if exact else space.nystrom
        least = int((sigma > threshold + self.error_bound).sum())
        if not self.norm or above <= 0:
            # Of a block that is not 0, any of them may be above.
            return (least, self.limit) if self.norm else (0, 0)
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

    def __init__(self, blocks: Sequence[Estimated], shape: tuple[int, ...]) -> None:
        """Of all batch entries and positions in their order, of the shape (..., P)."""
        self._blocks, self._shape = blocks, shape

    @property
    def error_bound(self) -> Tensor:  # pyright: ignore[reportIncompatibleVariableOverride]
        """δ of the singular values that are computed, (..., P)."""
        return self._gathered(lambda block: block.error_bound)

    def norms(self) -> Tensor:
        """‖H_i‖_F, (..., P)."""
        return self._gathered(lambda block: block.norm)

    def counts(self, thresholds: Tensor) -> Counts:
        """#{σ > τ} for absolute thresholds (K,), in the middle of bounds."""
        return self._counted(thresholds, lambda block: 1.0)

    def relative_counts(self, ratios: Tensor) -> Counts:
        """#{σ > ρ σ_1} for ratios (R,), in the middle of bounds."""
        return self._counted(ratios, lambda block: float(block.estimate.space.leading(1)[0].sum()))

    def entropies(self) -> tuple[Tensor, Tensor]:
        """The middle of each interval and half of its width, both (..., P)."""
        low = self._gathered(lambda block: block.estimate.interval.low)
        high = self._gathered(lambda block: block.estimate.interval.high)
        return (low + high) / 2, (high - low) / 2

    def _counted(self, thresholds: Tensor, scale: Callable[[Estimated], float]) -> Counts:
        """Counts above thresholds (K,) times the scale of each block."""
        bounds = [[block.count_above(float(level) * scale(block)) for level in thresholds] for block in self._blocks]
        lower, upper = torch.tensor(bounds, dtype=torch.int64).reshape(*self._shape, len(thresholds), 2).unbind(-1)
        return Counts((lower + upper) // 2, lower, upper)

    def _gathered(self, value: Callable[[Estimated], float]) -> Tensor:
        """Values of all blocks, (..., P)."""
        return torch.tensor([value(block) for block in self._blocks], dtype=torch.float64).reshape(self._shape)
