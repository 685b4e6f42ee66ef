"""The blocks of an operator by shifted eliminations of groups of positions, each answer certified."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from statesize.spectra.cut import Cut
from statesize.spectra.engine import Counts, HankelBlocks
from statesize.spectra.shifts.groups import FIRST_GAP, Eliminations, Groups


class CertifiedBlocks(HankelBlocks):
    """The blocks H_i of an operator by shifted eliminations, which are prepared when they are first needed."""

    def __init__(
        self,
        eliminate: Callable[[], Eliminations],
        batch_shape: torch.Size,
        cut: Cut,
        rank: int,
        for_shifts: Callable[[], Eliminations] | None = None,
        numbers_at_once: int = 2**21,
        first_gap: float = FIRST_GAP,
    ) -> None:
        self._given = batch_shape, cut, rank, numbers_at_once, first_gap
        self._for_counts, self._for_shifts = eliminate, for_shifts or eliminate
        self._prepared: dict[Callable[[], Eliminations], Groups] = {}

    @property
    def error_bound(self) -> Tensor:  # pyright: ignore[reportIncompatibleVariableOverride]
        """δ ≥ |σ̂ − σ|, (..., P), of the eliminations that were prepared last."""
        groups = self._any()
        return groups.at_positions(groups.own_error)

    def norms(self) -> Tensor:
        """‖H_i‖_F, (..., P)."""
        groups = self._any()
        return groups.at_positions(groups.squared_norms.sqrt())

    def counts(self, thresholds: Tensor) -> Counts:
        """#{σ > τ} for absolute thresholds (K,)."""
        groups = self._groups(self._for_counts) if thresholds.numel() else self._any()
        even = torch.ones_like(groups.limit, dtype=thresholds.dtype)
        return gathered(groups, [groups.counts(tau * even, tau * even) for tau in thresholds])

    def relative_counts(self, ratios: Tensor, accuracy: float = 0.0) -> Counts:
        """#{σ > ρ σ_1} for ratios (R,)."""
        groups = self._groups(self._for_shifts) if ratios.numel() else self._any()
        if not ratios.numel() or not groups.wanted.any():
            none = torch.zeros_like(groups.limit)
            return gathered(groups, [(none, none, none)] * ratios.numel())
        low, high = groups.largest()
        return gathered(groups, [groups.counts(rho * low, rho * high, float(rho)) for rho in ratios])

    def entropies(self, accuracy: float) -> tuple[Tensor, Tensor]:
        """Entropy-ESS to a relative accuracy and a bound on its error, both (..., P)."""
        groups = self._groups(self._for_shifts)
        ess, error = groups.entropies(accuracy)
        return groups.at_positions(ess), groups.at_positions(error)

    def _groups(self, eliminate: Callable[[], Eliminations]) -> Groups:
        if eliminate not in self._prepared:
            self._prepared[eliminate] = Groups(eliminate(), *self._given)
        return self._prepared[eliminate]

    def _any(self) -> Groups:
        """Groups that were needed anyway, for what all of them know."""
        return next(reversed(self._prepared.values()), None) or self._groups(self._for_counts)


def gathered(groups: Groups, counts: list[tuple[Tensor, Tensor, Tensor]]) -> Counts:
    """Counts and bounds (N, b) of K thresholds at the positions asked, (..., P, K)."""
    if not counts:
        none = groups.at_positions(groups.limit)[..., None][..., :0]
        return Counts(none, none, none)
    columns = zip(*counts, strict=True)
    return Counts(*(torch.stack([groups.at_positions(part) for part in column], -1) for column in columns))
