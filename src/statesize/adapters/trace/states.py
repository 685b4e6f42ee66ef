"""How many numbers a state must hold for T, (S, unit, L, L), told from T itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

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
# Arithmetic after which cuts are spread over the text, and the fewest of them.
_WORK, _FEWEST = 2e10, 8
# Cuts at which the rank is asked for where T seems to keep more, and numbers of T up to which all cuts are looked at.
_CUTS, _LARGEST = 2, 2**26
# How far sums of weights may be from 1 by a number that keeps a division from 0.
_NORMALISED = 1e-3


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

    def sums_to_one(self) -> bool:
        """Whether equal values stay what they are, as those of attention do."""
        return bool(((self.matrix.sum(-1) - 1).abs() <= _NORMALISED).all())

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
            cuts += cuts_beyond(self.matrix, torch.full((self.length,), states), self.stored)[:_CUTS]
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


@torch.no_grad()
def cuts_beyond(matrix: Tensor, sizes: Tensor, stored: int = 0) -> list[int]:
    """Cuts at which T seems to keep more numbers than a size (L,) says, the clearest first.

    Args:
        matrix: T of all units, (S, unit, L, L), in float64.
        sizes: Numbers that are kept at each position.
        stored: How many stored inputs consecutive units read; 0 where every unit has its own.

    Returns:
        The cuts. A random part shows them: the rank of H itself is to be asked there.
    """
    sequences, units, length, _ = matrix.shape
    at = torch.arange(length)
    cuts = (sizes.cpu() < torch.minimum(at, length - at)).nonzero().flatten()
    if not len(cuts):
        return []
    width = int(sizes.cpu()[cuts].max()) + 1 + _BEYOND
    count = int(_WORK / (20 * sequences * units * width**3))
    if len(cuts) > max(count, _FEWEST):
        generator = torch.Generator().manual_seed(0)
        cuts = cuts[torch.randperm(len(cuts), generator=generator)[: max(count, _FEWEST)].sort().values]
    generator = torch.Generator().manual_seed(1)
    rows = torch.randn(units, width, length, generator=generator, dtype=torch.float64)
    columns = torch.randn(length, width, generator=generator, dtype=torch.float64)
    lower = matrix.cpu().tril(-1)
    right, left = lower @ columns, rows @ lower
    # The random part of the next H has a column more and a row less.
    part: Tensor = lower.new_zeros(sequences, units, width, width)
    wanted, parts = set(cast("list[int]", cuts.tolist())), list[Tensor]()
    for cut in range(1, int(cuts.max()) + 1):
        part = (
            part + left[..., cut - 1, None] * columns[cut - 1] - rows[..., cut - 1, None] * right[..., cut - 1, None, :]
        )
        if cut in wanted:
            # What several units keep of one input is what they need together.
            parts.append(part.reshape(sequences, stored or units, -1, width, width).sum(2))
    sigma = cast("Tensor", torch.linalg.svdvals(torch.stack(parts)))  # (cut, S, stored, width)
    first = sigma.gather(-1, sizes.cpu()[cuts].reshape(-1, 1, 1, 1).expand(*sigma.shape[:-1], 1))[..., 0]
    excess = first / sigma[..., 0].clamp_min(torch.finfo(sigma.dtype).tiny)
    excess = torch.where((excess > _HERE) & (first > _ANYWHERE * sigma.max()), excess, 0.0).flatten(1).amax(1)
    order = excess.argsort(descending=True)
    return cast("list[int]", cuts[order[excess[order] > 0]].tolist())
