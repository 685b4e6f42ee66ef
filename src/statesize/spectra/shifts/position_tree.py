"""Relative counts of a T of full rank: bounds as close as asked, from thresholds that neighbouring positions share."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor

from statesize.check import require_finite
from statesize.operators import Operator
from statesize.spectra.cut import Cut
from statesize.spectra.engine import Counts
from statesize.spectra.shifts.certified import CertifiedBlocks
from statesize.spectra.shifts.tree import PositionTree, plant_tree

# Rounds that halve the distance between thresholds; what is open after them gets its singular values.
_ROUNDS = 6
# Positions that are undecided about the same threshold but this share of the sequence apart are looked at one by one.
_APART = 1 / 16


class TreeBlocks(CertifiedBlocks):
    """The blocks of operators of any rank by position trees.

    Args:
        tree: The tree.
        batch_shape: Batch shape of the operator.
        cut: Which blocks, not windowed.
    """

    def __init__(self, tree: PositionTree, batch_shape: torch.Size, cut: Cut) -> None:
        if cut.positions:
            tree = replace(tree, needed=(min(cut.positions), max(cut.positions) + 1))
        super().__init__(tree, batch_shape, cut, cut.length)
        self._tree = tree

    def relative_counts(self, ratios: Tensor, accuracy: float = 0.0) -> Counts:
        """#{σ > ρ σ_1} for ratios (R,); with an accuracy, bounds that lie within that share of the larger one.

        Exact counts need a threshold of their own at each position, which costs as much as its singular values.

        Args:
            ratios: ρ, (R,).
            accuracy: 0 for exact counts; otherwise a count without singular values is the middle of its bounds.

        Returns:
            The counts.
        """
        if not accuracy or not bool(self._wanted.any()):
            return super().relative_counts(ratios, accuracy)
        low, high = self._tree.largest()
        found: list[tuple[Tensor, Tensor, Tensor]] = []
        for rho in ratios:
            bands = [self._bands(entry, rho * low[entry], rho * high[entry], accuracy) for entry in range(low.shape[0])]
            lower, upper = (torch.stack(part) for part in zip(*bands, strict=True))
            close = upper - lower <= accuracy * upper
            # Where even the last round left too much open, only singular values help.
            none = torch.zeros_like(lower)
            count, least, most = self._decided(
                rho * high, float(rho), torch.where(close, none, lower), torch.where(close, none, upper)
            )
            lower, upper = torch.where(close, lower, least), torch.where(close, upper, most)
            found.append((torch.where(close, (lower + upper) // 2, count), lower, upper))
        return self._gathered(found)

    def _bands(self, entry: int, low: Tensor, high: Tensor, accuracy: float) -> tuple[Tensor, Tensor]:
        # Thresholds lie in [low, high], (2h,). A count at τ bounds those of all positions with thresholds beside τ.
        lower, upper = torch.zeros_like(self._limit[entry]), self._limit[entry].clone()
        wanted = self._wanted[entry] & torch.isfinite(high)
        tree, error = self._tree.at(torch.tensor([entry], device=low.device)), float(self._error[entry])
        silent = low <= error
        logarithm = torch.where(silent, torch.nan, low).log()
        step = math.log1p(4 * accuracy)
        for attempt in range(_ROUNDS):
            open_ = wanted & ~silent & (upper - lower > accuracy * upper)
            if not bool(open_.any()):
                break
            rung = torch.where(open_, torch.floor(logarithm / step), torch.nan)
            for number in _rungs(rung, first=attempt == 0):
                near = open_ & ((rung - number + 0.5).abs() <= 1)
                for run in _runs(near):
                    shift = torch.tensor([math.exp(number * step)], dtype=low.dtype, device=low.device)
                    count, uncertainty = tree.counts(shift, run)
                    reach = uncertainty[0] + error
                    above, below = high[run] <= shift - reach, low[run] >= shift + reach
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


@torch.no_grad()
def tree_blocks(operator: Operator, cut: Cut) -> TreeBlocks:
    """Counts and entropies of any operator, whatever its rank; about 7 L² numbers are held for each batch entry.

    Args:
        operator: Any operator.
        cut: Which blocks, not windowed.

    Returns:
        The blocks; without gradients.
    """
    matrix = operator.dense()
    require_finite("T", matrix)
    tree = plant_tree(matrix.flatten(0, -3) if matrix.ndim > 2 else matrix[None])
    return TreeBlocks(tree, operator.batch_shape, cut)
