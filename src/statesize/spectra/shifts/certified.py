"""The blocks of an operator by shifted eliminations of groups of positions, each answer certified."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any, cast

import torch
from torch import Tensor

from statesize.spectra.cut import Cut
from statesize.spectra.engine import Counts, HankelBlocks
from statesize.spectra.shifts.groups import FIRST_GAP, Eliminations, Groups
from statesize.spectra.shifts.shared_thresholds import SharedThresholds, enclose_largest

# How close bounds on σ_1 are for counts between bounds: everywhere, and how many times closer each time that counts
# are still too far apart then, down to the last number.
_CLOSE, _CLOSER, _CLOSEST = 1e-1, 6.0, 4e-4


class CertifiedBlocks(HankelBlocks):
    """The blocks H_i of an operator by shifted eliminations, which are prepared when they are first needed."""

    def __init__(
        self,
        eliminate: Callable[[], Eliminations],
        batch_shape: torch.Size,
        cut: Cut,
        rank: int,
        numbers_at_once: int = 2**21,
        first_gap: float = FIRST_GAP,
    ) -> None:
        self._given = batch_shape, cut, rank, numbers_at_once, first_gap
        self._eliminate = eliminate

    @cached_property
    def groups(self) -> Groups:
        """The eliminations, with what is known of their positions."""
        return Groups(self._eliminate(), *self._given)

    @property
    def error_bound(self) -> Tensor:  # pyright: ignore[reportIncompatibleVariableOverride]
        """δ ≥ |σ̂ − σ|, (..., P)."""
        return self.groups.at_positions(self.groups.own_error)

    def norms(self) -> Tensor:
        """‖H_i‖_F, (..., P)."""
        return self.groups.at_positions(self.groups.squared_norms.sqrt())

    def counts(self, thresholds: Tensor) -> Counts:
        """#{σ > τ} for absolute thresholds (K,)."""
        return self._gathered([self.groups.counts(tau) for tau in _plain(thresholds)])

    def relative_counts(self, ratios: Tensor, accuracy: float = 0.0) -> Counts:
        """#{σ > ρ σ_1} for ratios (R,); with an accuracy, the middle of bounds that are so close, or 1 apart."""
        if not ratios.numel() or not self.groups.wanted.any():
            none = torch.zeros_like(self.groups.limit)
            return self._gathered([(none, none, none)] * ratios.numel())
        return self._gathered(self._between(ratios, accuracy))

    def entropies(self, accuracy: float) -> tuple[Tensor, Tensor]:
        """Entropy-ESS to a relative accuracy and a bound on its error, both (..., P)."""
        ess, error = self.groups.entropies(accuracy)
        return self.groups.at_positions(ess), self.groups.at_positions(error)

    def _between(self, ratios: Tensor, accuracy: float) -> list[tuple[Tensor, Tensor, Tensor]]:
        """Counts above each ρ σ_1, (N, b), with bounds that are close, from singular values where that fails."""
        # All ratios at once: their groups in a row, (R · N, b).
        groups, several = self.groups, ratios.numel()
        every = torch.arange(groups.limit.shape[0], device=ratios.device).repeat(several)
        rho = ratios.repeat_interleave(groups.limit.shape[0])[:, None]
        low, high = self._enclosed_largest()
        # The largest value itself exceeds a share of it.
        least = ((low > groups.error)[every] & (rho < 1)).long()
        limits = groups.wanted[every], least, groups.limit[every], groups.error[every]
        shared = SharedThresholds(groups.eliminations, every, rho * low[every], rho * high[every], *limits, accuracy)

        def closer(chosen: Tensor) -> tuple[Tensor, Tensor]:
            nonlocal low, high
            requested = chosen.reshape(several, *groups.limit.shape).any(0)
            close = float((high / low)[requested & (low > 0)].nan_to_num(posinf=1.0).max()) - 1
            low, high = self._closer_largest(low, high, requested, max(_CLOSEST, close / _CLOSER))
            return rho * low[every], rho * high[every]

        lower, upper = shared.bounds(closer)
        parts = (lower, upper, shared.apart(lower, upper))
        columns = zip(_plain(ratios), *(part.chunk(several) for part in parts), strict=True)
        return [_resolved(groups, *column) for column in columns]

    def _enclosed_largest(self) -> tuple[Tensor, Tensor]:
        """σ_1 of every position between two numbers (N, b) that are as close as counts between bounds need at first."""
        groups = self.groups
        low, high = groups.eliminations.largest()
        low = (low - groups.error).clamp(min=0)
        high = torch.fmin(high, groups.eliminations.norm_bound()[:, None] + groups.error)
        # Bounds that contradict each other are none.
        sound = low <= high
        low, high = torch.where(sound, low, 0), torch.where(sound, high, torch.inf)
        return self._closer_largest(low, high, groups.wanted, _CLOSE)

    def _closer_largest(self, low: Tensor, high: Tensor, chosen: Tensor, close: float) -> tuple[Tensor, Tensor]:
        """Bounds on σ_1 (N, b) as close as requested at positions of a mask (N, b)."""
        # σ within the error of 0 are not looked for, nor those of which nothing is known.
        large = chosen & (high > 4 * self.groups.error) & torch.isfinite(high)
        return enclose_largest(self.groups.eliminations, low, high, large, self.groups.error, close)

    def _gathered(self, counts: list[tuple[Tensor, Tensor, Tensor]]) -> Counts:
        """Counts and bounds (N, b) of K thresholds at the requested positions, (..., P, K)."""
        if not counts:
            none = self.groups.at_positions(self.groups.limit)[..., None][..., :0]
            return Counts(none, none, none)
        columns = zip(*counts, strict=True)
        return Counts(*(torch.stack([self.groups.at_positions(part) for part in column], -1) for column in columns))


def _plain(numbers: Tensor) -> list[float]:
    return cast("list[float]", cast("Any", numbers).tolist())


def _resolved(
    groups: Groups, ratio: float, lower: Tensor, upper: Tensor, left: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The middle of bounds (N, b), and where a mask says that they are too far apart, what singular values say."""
    none = torch.zeros_like(lower)
    limits = torch.where(left, lower, none), torch.where(left, upper, none)
    count, least, most = groups.resolve(ratio, *limits, relative=True)
    lower, upper = torch.where(left, least, lower), torch.where(left, most, upper)
    return torch.where(left, count, (lower + upper) // 2), lower, upper
