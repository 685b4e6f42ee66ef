"""Blocks known with some error, and a way to know single ones better where a question needs it."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from statesize.errors import EngineError
from statesize.spectra.engine import Counts, HankelBlocks


class SecondOpinion(HankelBlocks):
    """Blocks of which those are computed once more whose answer the error leaves open.

    Args:
        blocks: The blocks, batch shape (m,).
        again: Blocks of batch shape (1,) for one batch entry at places out of 0 … P − 1, (q,) int64.
    """

    def __init__(self, blocks: HankelBlocks, again: Callable[[int, Tensor], HankelBlocks]) -> None:
        self._blocks = blocks
        self._again = again
        self.error_bound = blocks.error_bound

    def norms(self) -> Tensor:
        """‖H_i‖_F, (m, P), with the error of the blocks."""
        return self._blocks.norms()

    def counts(self, thresholds: Tensor) -> Counts:
        """#{σ > τ} for absolute thresholds (K,)."""
        return self._counted(lambda blocks: blocks.counts(thresholds), 0.0)

    def relative_counts(self, ratios: Tensor, accuracy: float = 0.0) -> Counts:
        """#{σ > ρ σ_1} for ratios (R,)."""
        return self._counted(lambda blocks: blocks.relative_counts(ratios, accuracy), accuracy)

    def entropies(self, accuracy: float) -> tuple[Tensor, Tensor]:
        """Entropy-ESS to a relative accuracy and a bound on its error, both (m, P)."""
        entropy, bound = self._blocks.entropies(accuracy)
        for entry, places in self._open(bound > accuracy * entropy):
            better, close = self._again(entry, places).entropies(accuracy)
            entropy[entry, places], bound[entry, places] = better[0], close[0]
        return entropy, bound

    def singular_values(self) -> Tensor:
        """Not given.

        Raises:
            EngineError: Always.
        """
        raise EngineError(
            "these blocks give counts and entropies; for all singular values use distinct_blocks or dense"
        )

    def _counted(self, ask: Callable[[HankelBlocks], Counts], accuracy: float) -> Counts:
        found = ask(self._blocks)
        parts = found.count.clone(), found.lower.clone(), found.upper.clone()
        for entry, places in self._open((found.upper - found.lower > accuracy * found.upper).any(-1)):
            better = ask(self._again(entry, places))
            for part, answer in zip(parts, (better.count, better.lower, better.upper), strict=True):
                part[entry, places] = answer[0]
        return Counts(*parts)

    @staticmethod
    def _open(unknown: Tensor) -> list[tuple[int, Tensor]]:
        entries = unknown.any(-1).nonzero().squeeze(-1)
        return [(int(entry), unknown[entry].nonzero().squeeze(-1)) for entry in entries]
