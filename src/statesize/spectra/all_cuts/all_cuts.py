"""Counts and entropies at all cuts of any operator."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from statesize.check import require_finite
from statesize.operators import Operator, Shared
from statesize.spectra.cut import Cut
from statesize.spectra.engine import DOUBLE, Engine, Footprint, HankelBlocks


@dataclass(frozen=True)
class AllCutsEngine(Engine):
    """Counts and entropies of any operator at all cuts, or at many; its kernels are compiled when first needed.

    Attributes:
        width: Positions of a chunk; None for the fastest.
    """

    width: int | None = None

    name = "all_cuts"
    outputs = frozenset(("counts", "entropy"))
    works_on = (Operator, Shared)

    @torch.no_grad()
    def blocks(self, operator: Operator, cut: Cut) -> HankelBlocks:
        """The blocks, from T; without gradients."""
        from statesize.spectra.all_cuts.blocks import AllCutsBlocks

        matrix = operator.dense()
        require_finite("T", matrix)
        matrix = matrix.flatten(-3, -2) if isinstance(operator, Shared) else matrix
        matrices = matrix.detach().cpu().reshape(-1, *matrix.shape[-2:])
        return AllCutsBlocks(matrices.numpy(), operator.batch_shape, cut, self._width(cut))

    def _width(self, cut: Cut) -> int:
        return self.width or (16 if cut.length < 1536 else 32)

    def footprint(self, operator: Operator, cut: Cut) -> Footprint:
        """T with its copies and Gram matrices, and the borders of all chunks."""
        return Footprint(DOUBLE * 5 * cut.readouts * cut.length**2)
