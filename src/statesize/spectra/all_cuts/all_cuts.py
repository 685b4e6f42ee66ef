"""Counts and entropies at all cuts of any operator."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from statesize.check import all_finite
from statesize.operators import Operator, Shared
from statesize.spectra.cut import Cut
from statesize.spectra.engine import DOUBLE, Engine, Footprint, HankelBlocks
from statesize.spectra.exact.dense import forming_seconds
from statesize.spectra.exact.exact import ExactEngine

# Positions up to which "auto" does not take it.
_FEW = 40


@dataclass(frozen=True)
class AllCutsEngine(Engine):
    """Counts and entropies of any operator at all cuts, or at many; its kernels are compiled when first needed.

    Attributes:
        halvings: Of a chunk until one position is left, at least 1; None for the fastest.
    """

    halvings: int | None = None

    name = "all_cuts"
    outputs = frozenset(("counts", "entropy"))
    works_on = (Operator, Shared)

    @torch.no_grad()
    def blocks(self, operator: Operator, cut: Cut) -> HankelBlocks:
        """The blocks, from T; without gradients."""
        from statesize.spectra.all_cuts.blocks import AllCutsBlocks

        matrix = operator.dense()
        if not all_finite(matrix):
            # It tells what overflows from what does not.
            return ExactEngine().blocks(operator, cut)
        matrix = matrix.flatten(-3, -2) if isinstance(operator, Shared) else matrix
        matrices = matrix.detach().cpu().reshape(-1, *matrix.shape[-2:])
        return AllCutsBlocks(matrices.numpy(), operator.batch_shape, cut, self._width(cut))

    def _width(self, cut: Cut) -> int:
        return 2 ** (self.halvings or (4 if cut.length < 768 else 5))

    def seconds(self, operator: Operator, cut: Cut) -> float:
        """Infinity up to 40 positions, for which nothing is to be compiled; see `Engine.seconds`."""
        if len(cut.positions) <= _FEW:
            return math.inf
        r, sides = cut.readouts, {i: min(i, cut.readouts * (cut.length - i)) for i in cut.positions}
        b = self._width(cut)
        n = (r + 1) / 2 * b
        # The core of a chunk with thresholds that positions share, and what each position takes beside it.
        cores = {i // b: side for i, side in sides.items()}.values()
        shared = sum(8e-5 + 1.2e-8 * p**2 + 4.5e-11 * p**3 + 4e-9 * p * n**2 for p in cores)
        own = sum(2e-5 * n / b + 1.2e-10 * p * n**2 + 2e-9 * p * n for p in sides.values())
        return 1.5e-3 + forming_seconds(operator) + shared + own

    def footprint(self, operator: Operator, cut: Cut) -> Footprint:
        """T with its copies and Gram matrices, and the borders of all chunks."""
        return Footprint(DOUBLE * 5 * cut.readouts * cut.length**2)
