"""At which cuts T keeps more numbers than are said of it."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor

# Random rows and columns beyond the numbers that are asked about.
_BEYOND = 8
# Singular values of a random part of H that may be numbers of a state, as parts of the largest there and of all cuts.
_HERE, _ANYWHERE = 1e-9, 1e-10
# Arithmetic after which cuts are spread over the text, and the fewest of them.
_WORK, _FEWEST = 2e10, 8


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
