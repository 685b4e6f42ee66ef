"""Operators of any rank: counts and entropies by halving the sequence (docs/engines.md, "Elimination trees")."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from statesize.check import require_finite
from statesize.operators import Dense, Operator, Recurrence
from statesize.spectra.cut import Cut
from statesize.spectra.engine import DOUBLE, FALLBACK_BYTES, Engine, has_compiled_kernels
from statesize.spectra.shifts.certified import CertifiedBlocks
from statesize.spectra.shifts.tree import LEAF, PositionTree, plant_tree


@dataclass(frozen=True)
class PositionTreeEngine(Engine):
    """Counts and entropies of any operator, whatever its rank, by eliminations that neighbouring positions share."""

    leaf: int = LEAF  # width below which the sequence is not halved any further
    few_positions: int = 32  # positions whose singular values take as long as the eliminations for all of them

    name = "position_tree"
    outputs = frozenset(("counts", "entropy"))
    cost = "O(L³)"

    def defers(self, operator: Operator, cut: Cut, outputs: tuple[str, ...]) -> str | None:
        """Where a state is smaller than T, compiled kernels can be used, or few positions are asked."""
        if isinstance(operator, Recurrence):
            return "works on T itself, which is larger than the state of a recurrence"
        if has_compiled_kernels(operator.device):
            return "takes more operations than tridiagonal, which has compiled kernels here"
        if operator.length < 128 or len(cut.positions) < self.few_positions:
            return f"works on all positions at once: only worthwhile from 128 on, if {self.few_positions} are asked"
        return None

    @torch.no_grad()
    def blocks(self, operator: Operator, cut: Cut) -> TreeBlocks:
        """The blocks by the tree of T; without gradients."""
        matrix = operator.dense()
        require_finite("T", matrix)
        tree = plant_tree(matrix.flatten(0, -3) if matrix.ndim > 2 else matrix[None], self.leaf)
        return TreeBlocks(tree, operator.batch_shape, cut)

    def footprint(self, operator: Operator, cut: Cut) -> int:
        """Halves of T, and one level of the tree at a time."""
        return DOUBLE * 20 * cut.length**2

    def shared_footprint(self, operator: Operator, cut: Cut) -> int:
        """Singular values of what the eliminations leave unresolved."""
        return FALLBACK_BYTES

    def least_bytes(self, operator: Operator, cut: Cut) -> int:
        """T where it is formed, its part below the diagonal, its quarters, and the products that serve all shifts."""
        formed = 0 if isinstance(operator, Dense) else 1
        return int(DOUBLE * (formed + 1 + 3 / 4 + 2 / 3) * cut.length**2)


class TreeBlocks(CertifiedBlocks):
    """The blocks of operators by a position tree, of a cut that is not windowed."""

    def __init__(self, tree: PositionTree, batch_shape: torch.Size, cut: Cut) -> None:
        if cut.positions:
            tree = replace(tree, needed=(min(cut.positions), max(cut.positions) + 1))
        super().__init__(lambda: tree, batch_shape, cut, cut.length)
