"""How many numbers a state must hold for T, (S, unit, L, L), told from T itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from statesize.adapters.other_inputs import within_blocks

# Singular values that are numbers of a state, and rounding, as parts of the largest.
STATE, _ROUNDING = 1e-8, 1e-12
# Positions below which two lengths tell nothing.
SHORTEST = 8
# Random columns that stand for all of H.
_SAMPLES = 256
# Random rows and columns beyond the numbers that are asked about.
_BEYOND = 8
# Singular values of a random part of H that may be numbers of a state, as parts of the largest there and of all cuts.
_HERE, _ANYWHERE = 1e-9, 1e-10
# Cuts that are asked about, of these those at which the rank is asked for, and numbers of T up to which they are.
_CUTS, _CLEAREST, _LARGEST = 32, 2, 2**26


@dataclass(frozen=True, eq=False)
class Kept:
    """T and the stored inputs that its units read.

    Attributes:
        matrix: T, (S, unit, L, L) in float64, units that read one input side by side.
        stored: Number of stored inputs, each read by as many consecutive units.
    """

    matrix: Tensor
    stored: int

    @property
    def length(self) -> int:
        """L."""
        return self.matrix.shape[-1]

    def state(self) -> int | None:
        """Numbers that each stored input keeps for a channel, by a rank that stops growing; None if it does not."""
        length = self.length
        if length < SHORTEST:
            return None
        shorter = self._numbers(length // 4, length // 2)
        if shorter is None or not 0 < shorter < length // 4:
            return None
        if {self._numbers(eighths * length // 8, length) for eighths in (3, 4, 5)} != {shorter}:
            return None
        return shorter if self.largest_rank(shorter) <= shorter else None

    def largest_rank(self, states: int) -> int:
        """The largest rank of H in the middle, and where T seems to keep more numbers than so many."""
        cuts = [self.length // 2]
        if self.matrix.numel() <= _LARGEST:
            cuts += cuts_beyond(self.matrix, torch.full((self.length,), states), self.stored)[:_CLEAREST]
        return max(int((self._spectra(cut, self.length) > STATE).sum(-1).max()) for cut in cuts)

    def _numbers(self, cut: int, end: int) -> int | None:
        """The largest rank of H at a cut, of rows before an end; None where no gap tells numbers from rounding."""
        relative = self._spectra(cut, end)
        if bool(((relative <= STATE) & (relative > _ROUNDING)).any()):
            return None
        return int((relative > STATE).sum(-1).max())

    def _spectra(self, cut: int, end: int) -> Tensor:
        """Singular values of H at a cut, of rows before an end, for each stored input, relative to the largest."""
        block = self.matrix[..., cut:end, :cut]
        block = block.reshape(len(block), self.stored, -1, cut)
        if cut > _SAMPLES:
            block = block @ torch.randn(cut, _SAMPLES, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        sigma = cast("Tensor", torch.linalg.svdvals(block))
        return sigma / sigma[..., :1].clamp_min(torch.finfo(sigma.dtype).tiny)


def cuts_of(length: int) -> list[int]:
    """Up to 32 cuts all over a text, which begin no blocks of a few positions; all cuts of a short text."""
    return sorted(
        {within_blocks(1 + at * (length - 1) // _CUTS, length) for at in range(_CUTS)}
        if length > _CUTS + 1
        else range(1, length)
    )


def cuts_beyond(matrix: Tensor, sizes: Tensor, stored: int = 0) -> list[int]:
    """Cuts at which T seems to keep more numbers than a size (L,) says, the clearest first.

    Args:
        matrix: T of all units, (S, unit, L, L), in float64.
        sizes: Numbers that are kept at each position.
        stored: How many stored inputs consecutive units read; 0 where every unit has its own.

    Returns:
        The cuts. A random part shows them: the rank of H itself is to be asked there.
    """
    generator, excess, largest = torch.Generator().manual_seed(0), dict[int, tuple[float, float]](), 0.0
    for cut in cuts_of(length := matrix.shape[-1]):
        if (states := int(sizes[cut])) >= min(cut, length - cut):
            continue
        # What several units keep of one input is what they need together.
        block = matrix[..., cut:, :cut].reshape(len(matrix), stored or matrix.shape[1], -1, cut)
        rows, columns = (
            torch.randn(states + 1 + _BEYOND, size, generator=generator, dtype=torch.float64)
            for size in block.shape[-2:]
        )
        sigma = cast("Tensor", torch.linalg.svdvals(rows @ block @ columns.mT))
        part = sigma[..., states] / sigma[..., 0].clamp_min(torch.finfo(sigma.dtype).tiny)
        largest = max(largest, float(sigma.max()))
        excess[cut] = float(part.max()), float(sigma.flatten(0, -2)[part.argmax(), states])
    beyond = [cut for cut, (part, first) in excess.items() if part > _HERE and first > _ANYWHERE * largest]
    return sorted(beyond, key=lambda cut: -excess[cut][0])
