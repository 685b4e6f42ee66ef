"""The blocks of an operator by shifted eliminations of groups of positions, each answer certified."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from statesize.parallel.threads import ComputedOnce
from statesize.spectra.cut import Cut
from statesize.spectra.engine import Counts, HankelBlocks
from statesize.spectra.shifts.groups import FIRST_GAP, Eliminations, Groups
from statesize.spectra.shifts.shared_thresholds import apart, shared_thresholds

# Exact counts at relative tolerances from which on eliminations are made for them.
_SEVERAL = 5


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
        for_several: Callable[[], Eliminations] | None = None,
    ) -> None:
        self._given = batch_shape, cut, rank, numbers_at_once, first_gap
        # As they are made for several exact relative counts, or for anything else that is asked first.
        self._ways, self._several = {False: eliminate, True: for_several or eliminate}, False

    @ComputedOnce
    def groups(self) -> Groups:
        """The eliminations, with what is known of their positions."""
        groups = Groups(self._ways[self._several](), *self._given)
        # What they are made of is not held.
        self._ways.clear()
        return groups

    @property
    def error_bound(self) -> Tensor:  # pyright: ignore[reportIncompatibleVariableOverride]
        """δ ≥ |σ̂ − σ|, (..., P)."""
        return self.groups.at_positions(self.groups.own_error)

    def norms(self) -> Tensor:
        """‖H_i‖_F, (..., P)."""
        return self.groups.at_positions(self.groups.squared_norms.sqrt())

    def counts(self, thresholds: Tensor) -> Counts:
        """#{σ > τ} for absolute thresholds (K,)."""
        return self._gathered(self.groups.counts(thresholds))

    def relative_counts(self, ratios: Tensor, accuracy: float = 0.0) -> Counts:
        """#{σ > ρ σ_1} for ratios (R,); with an accuracy, the middle of bounds that are so close, or 1 apart."""
        self._several = not accuracy and ratios.numel() >= _SEVERAL
        if not ratios.numel() or not self.groups.wanted.any():
            none = self.groups.limit.new_zeros(ratios.numel(), *self.groups.limit.shape)
            return self._gathered((none, none, none))
        return self._gathered(self._between(ratios, accuracy))

    def entropies(self, accuracy: float) -> tuple[Tensor, Tensor]:
        """Entropy-ESS to a relative accuracy and a bound on its error, both (..., P)."""
        ess, error = self.groups.entropies(accuracy)
        return self.groups.at_positions(ess), self.groups.at_positions(error)

    def _between(self, ratios: Tensor, accuracy: float) -> tuple[Tensor, Tensor, Tensor]:
        """Counts above ρ σ_1, (R, N, b), with bounds that are close, from singular values where that fails."""
        groups = self.groups
        low, high = groups.largest
        low = (low - groups.error).clamp(min=0)
        high = torch.fmin(high, groups.eliminations.norm_bound()[:, None] + groups.error)
        # Bounds that contradict each other are none.
        sound = low <= high
        low, high = torch.where(sound, low, 0), torch.where(sound, high, torch.inf)
        given = (ratios, low, high, groups.wanted, groups.limit, groups.error.squeeze(-1))
        found = shared_thresholds(groups.eliminations, accuracy, *(part.numpy() for part in given))
        bounds = (torch.from_numpy(part) for part in (found.lower, found.upper, apart(found, accuracy)))
        return groups.resolve(ratios, *bounds, relative=True)

    def _gathered(self, counts: tuple[Tensor, Tensor, Tensor]) -> Counts:
        """Counts and bounds (K, N, b) of K thresholds at the requested positions, (..., P, K)."""
        return Counts(*(self.groups.at_positions(part).movedim(0, -1) for part in counts))
