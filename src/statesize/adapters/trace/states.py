"""How many numbers a state must hold for T, (S, unit, L, L), told from T itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from statesize.adapters.other_inputs import within_blocks

# Singular values that are numbers of a state, and rounding, as parts of the largest.
STATE, _ROUNDING = 1e-8, 1e-12
_HERE, _ANYWHERE = 1e-9, 1e-10  # the same in a random part of H: as parts of the largest there, and of all cuts
_SHORTEST = 8  # positions below which two lengths tell nothing
# Random columns that stand for all of H, and random rows and columns beyond the numbers that are asked about.
_SAMPLES, _BEYOND = 256, 8
# Cuts at which the rank is asked for, and numbers of T up to which it is asked at more than one.
_CUTS, _LARGEST = 32, 2**26


@dataclass(frozen=True, eq=False)
class Kept:
    """T and the stored inputs that its units read."""

    matrix: Tensor  # T, (S, unit, L, L) in float64, units that read one input side by side
    stored: int  # number of stored inputs, each read by as many consecutive units

    def state(self) -> int | None:
        """Numbers that each stored input keeps for a channel, by a rank that stops growing; None if it does not."""
        length = self.matrix.shape[-1]
        if length < _SHORTEST:
            return None
        shorter = self._numbers(length // 4, length // 2)
        if shorter is None or not 0 < shorter < length // 4:
            return None
        is_fixed = {self._numbers(eighths * length // 8, length) for eighths in (3, 4, 5)} == {shorter}
        return shorter if is_fixed and self.largest_rank(shorter) <= shorter else None

    def largest_rank(self, states: int) -> int:
        """The largest rank of H, exact up to a few numbers more than so many."""
        return max(ranks(self.matrix, torch.full(self.matrix.shape[-1:], states), self.stored).values())

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


def ranks(matrix: Tensor, sizes: Tensor, stored: int) -> dict[int, int]:
    """The largest rank of H of T (S, unit, L, L) at up to 32 cuts, by random parts that show a few more than a size."""
    # stored: Number of stored inputs, each read by as many consecutive units: these are asked together.
    generator, spectra, length = torch.Generator().manual_seed(0), dict[int, Tensor](), matrix.shape[-1]
    cuts = {*range(1, length)}
    if length > _CUTS + 1:
        # A state of blocks of a few positions is empty at their borders.
        cuts = {within_blocks(1 + at * (length - 1) // _CUTS, length) for at in range(_CUTS)}
    for cut in sorted(cuts) if matrix.numel() <= _LARGEST else [length // 2]:
        block = matrix[..., cut:, :cut].reshape(len(matrix), stored, -1, cut)
        rows, columns = (
            torch.randn(min(int(sizes[cut]) + 1 + _BEYOND, size), size, generator=generator, dtype=torch.float64)
            for size in block.shape[-2:]
        )
        spectra[cut] = cast("Tensor", torch.linalg.svdvals(rows @ block @ columns.mT)).flatten(0, -2)
    least = _ANYWHERE * max(float(sigma.max()) for sigma in spectra.values())
    shown = {cut: (sigma > _HERE * sigma[:, :1]) & (sigma > least) for cut, sigma in spectra.items()}
    return {cut: int(numbers.sum(-1).max()) for cut, numbers in shown.items()}
