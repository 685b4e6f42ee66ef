"""Operators of any rank: counts and entropies by halving the sequence, and relative counts to an accuracy.

A threshold ρ σ_1 differs from position to position, so exact relative counts cost as much as singular values. Bounds as
close as asked come from thresholds that neighbouring positions share (docs/engines.md, "Relative tolerances of
attention").
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor

from statesize.check import require_finite
from statesize.operators import Dense, Operator, Recurrence
from statesize.spectra.cut import Cut
from statesize.spectra.engine import DOUBLE, FALLBACK_BYTES, RELATIVE, Counts, Engine
from statesize.spectra.shifts.certified import CertifiedBlocks, gathered
from statesize.spectra.shifts.groups import Groups
from statesize.spectra.shifts.tree import LEAF, PositionTree, plant_tree

# Rounds that halve the distance between thresholds; what they leave unresolved gets its singular values.
_ROUNDS = 6
# Positions with the same unresolved threshold but this fraction of the sequence apart are eliminated one by one.
_APART = 1 / 16


@dataclass(frozen=True)
class PositionTreeEngine(Engine):
    """Counts and entropies of any operator, whatever its rank, by eliminations that neighbouring positions share."""

    leaf: int = LEAF  # width below which the sequence is not halved any further
    few_positions: int = 32  # positions whose singular values take as long as the eliminations for all of them

    name = "position_tree"
    outputs = frozenset(("counts", "entropy"))
    cost = "O(L³)"

    def defers(self, operator: Operator, cut: Cut, outputs: tuple[str, ...]) -> str | None:
        """Where a state is smaller than T, thresholds differ, or few positions are asked."""
        if isinstance(operator, Recurrence):
            return "works on T itself, which is larger than the state of a recurrence"
        if RELATIVE in outputs:
            return "shares one threshold among positions; those of relative tolerances differ"
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
        self._tree = tree

    def relative_counts(self, ratios: Tensor, accuracy: float = 0.0) -> Counts:
        """#{σ > ρ σ_1} for ratios (R,); with an accuracy, the middle of bounds that are so close."""
        groups = self._groups(self._for_counts)
        if not accuracy or not bool(groups.wanted.any()):
            return super().relative_counts(ratios, accuracy)
        low, high = self._tree.largest()
        counts: list[tuple[Tensor, Tensor, Tensor]] = []
        for rho in ratios:
            entries = range(low.shape[0])
            bands = [self._bands(groups, entry, rho * low[entry], rho * high[entry], accuracy) for entry in entries]
            lower, upper = (torch.stack(part) for part in zip(*bands, strict=True))
            close = upper - lower <= accuracy * upper
            # Where even the last round leaves too much unresolved, only singular values help.
            none = torch.zeros_like(lower)
            count, least, most = groups.resolve(
                rho * high, float(rho), torch.where(close, none, lower), torch.where(close, none, upper)
            )
            lower, upper = torch.where(close, lower, least), torch.where(close, upper, most)
            counts.append((torch.where(close, (lower + upper) // 2, count), lower, upper))
        return gathered(groups, counts)

    def _bands(self, groups: Groups, entry: int, low: Tensor, high: Tensor, accuracy: float) -> tuple[Tensor, Tensor]:
        # Thresholds lie in [low, high], (2h,). A count at τ bounds those of all positions with thresholds beside τ.
        lower, upper = torch.zeros_like(groups.limit[entry]), groups.limit[entry].clone()
        wanted = groups.wanted[entry] & torch.isfinite(high)
        tree, error = self._tree.at(torch.tensor([entry], device=low.device)), float(groups.error[entry])
        silent = low <= error
        logarithm = torch.where(silent, torch.nan, low).log()
        step = math.log1p(4 * accuracy)
        for attempt in range(_ROUNDS):
            unresolved = wanted & ~silent & (upper - lower > accuracy * upper)
            if not bool(unresolved.any()):
                break
            rung = torch.where(unresolved, torch.floor(logarithm / step), torch.nan)
            for number in _rungs(rung, first=attempt == 0):
                near = unresolved & ((rung - number + 0.5).abs() <= 1)
                for run in _runs(near):
                    shift = torch.tensor([math.exp(number * step)], dtype=low.dtype, device=low.device)
                    count, uncertainty = tree.counts(shift, run)
                    distance = uncertainty[0] + error
                    above, below = high[run] <= shift - distance, low[run] >= shift + distance
                    lower[run] = torch.where(above, torch.maximum(lower[run], count[0]), lower[run])
                    upper[run] = torch.where(below, torch.minimum(upper[run], count[0]), upper[run])
            step /= 2
        return lower, upper


def _rungs(rung: Tensor, first: bool) -> list[int]:
    """Numbers n of the thresholds exp(n · step) next to any position's own; later rounds know the even ones."""
    below = {int(number) for number in cast("list[float]", cast("Any", rung[~rung.isnan()].unique()).tolist())}
    return sorted(number for number in below | {number + 1 for number in below} if first or number % 2)


def _runs(near: Tensor) -> list[slice]:
    """Slices that cover the positions, split where there is a wide gap."""
    positions = near.nonzero().squeeze(-1)
    if not positions.numel():
        return []
    gaps = (positions.diff() > _APART * near.shape[0]).nonzero().squeeze(-1)
    begins = torch.cat([positions[:1], positions[gaps + 1]])
    ends = torch.cat([positions[gaps], positions[-1:]]) + 1
    return [slice(int(begin), int(end)) for begin, end in zip(begins, ends, strict=True)]
