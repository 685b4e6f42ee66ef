"""Groups of positions that are eliminated together: counts by bisection, entropies by quadrature.

Every answer carries a certificate, and where it is not as close as requested, singular values replace it
(docs/appendix/engine-mathematics.md, "Counts", "Entropies" and "Certificates").
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol, Self

import torch
from torch import Tensor

from statesize.parallel.threads import ComputedOnce, end_if_unwanted
from statesize.spectra.cut import Cut
from statesize.spectra.shifts.quadrature import entropies, rules_from
from statesize.spectra.spectrum import UNDERFLOW, count_bounds, effective_rank, entropy_bound

# How far beside a threshold its inertia is tried first if nothing else is said, relative to it. Too near costs another
# evaluation, too far a few singular values; 1e-6 to 1e-5 take about the same time in `benchmarks/engines.py`.
FIRST_GAP = 2e-6
# How far above σ_1 the scale of an entropy may lie, relative to it: a closer one is not worth another evaluation.
_ABOVE = 0.1
# Positions for which singular values cost less than another evaluation.
_FEW = 4
# Fractions of positions left unresolved by one scale of shifts between which another scale is tried, and evaluations
# that it takes of each group.
_WORTH_ANOTHER_SCALE, _SHIFTS = (1 / 64, 3 / 4), 16


class Eliminations(Protocol):
    """N groups of b consecutive positions that are eliminated together, at any shift."""

    @property
    def width(self) -> int:
        """Positions of a group, b."""
        ...

    @property
    def evaluations_per_spectrum(self) -> int:
        """Evaluations of a group that cost at most as much as the singular values of one position."""
        ...

    @property
    def order(self) -> int:
        """Rows and columns of the matrices whose singular values `spectra` takes, together."""
        ...

    @property
    def ranks(self) -> Tensor | None:
        """How many singular values of each H_i may differ from 0, (N, b), or None if its shape says all."""
        ...

    @property
    def error(self) -> Tensor:
        """How far the singular values of what is eliminated can be from those of H_i, (N,)."""
        ...

    @property
    def summed_error(self) -> Tensor | None:
        """The sum of those distances over all singular values, (N,), or None if no more is known."""
        ...

    def at(self, index: Tensor) -> Self:
        """Some of the groups, in the order of an index, in which numbers may repeat."""
        ...

    def counts(self, shift: Tensor) -> tuple[Tensor, Tensor]:
        """How many σ exceed τ, (N, b), exact for some threshold within the second result, (N, b), of τ (N,)."""
        ...

    def log_determinants(self, shift: Tensor) -> Tensor:
        """The logarithms of det(I + HᵀH/s²), (N, b)."""
        ...

    def squared_norms(self) -> Tensor:
        """‖H_i‖_F², (N, b)."""
        ...

    def are_zero(self) -> Tensor:
        """Where every entry of what is eliminated is exactly 0, (N, b)."""
        ...

    def norm_bound(self) -> Tensor:
        """An upper bound on every σ_1 of a group, (N,)."""
        ...

    def largest(self) -> tuple[Tensor, Tensor]:
        """σ_1 between two numbers, (N, b) each; the upper one is infinite where nothing is known."""
        ...

    def spectra(self, group: Tensor, offset: Tensor, /) -> Tensor:
        """All singular values at chosen positions, (m, r)."""
        ...


class Groups:
    """Eliminations with what is known of their positions, (N, b) where nothing else is said."""

    def __init__(
        self,
        eliminations: Eliminations,
        batch_shape: torch.Size,
        cut: Cut,
        rank: int,
        numbers_at_once: int,
        first_gap: float = FIRST_GAP,
    ) -> None:
        device, b = eliminations.error.device, eliminations.width
        self.eliminations = eliminations
        self._shape = batch_shape
        self._positions = torch.tensor(cut.positions, dtype=torch.int64, device=device)
        entries = batch_shape.numel()
        groups = eliminations.error.shape[0] // entries if entries else -(-cut.length // b)
        self._length = groups * b
        position = torch.arange(self._length, device=device).reshape(-1, b)
        limit = torch.minimum(position, cut.readouts * (cut.length - position)).clamp(0, rank)
        self.limit, ranks = limit.repeat(entries, 1), eliminations.ranks
        if ranks is not None:
            self.limit = torch.minimum(self.limit, ranks)
        self.wanted = torch.isin(position, self._positions).repeat(entries, 1)
        self.squared_norms = eliminations.squared_norms()
        epsilon = 8 * eliminations.order * torch.finfo(torch.float64).eps
        # The error of singular values, then that of what is eliminated, which all positions of a group share.
        self.own_error = eliminations.error[:, None] + epsilon * self.squared_norms.sqrt() + UNDERFLOW
        roundoff = epsilon * self.squared_norms.amax(-1).sqrt()
        self.error = (eliminations.error + roundoff + UNDERFLOW)[:, None]
        # On average over the singular values of a position; round-off moves no more of them than there are rows.
        self._mean_error = self.error.expand_as(self.limit)
        if eliminations.summed_error is not None:
            summed = (eliminations.summed_error + eliminations.order * roundoff)[:, None]
            self._mean_error = torch.minimum(self._mean_error, summed / self.limit.clamp(min=1) + UNDERFLOW)
        self._first_gap = first_gap
        self._portion = max(1, numbers_at_once // eliminations.order**2)
        # After so many evaluations of a group, singular values of its positions cost less.
        self.rounds = b * eliminations.evaluations_per_spectrum + 2

    def at_positions(self, everywhere: Tensor) -> Tensor:
        """(N, b) at all positions of all groups to (..., P)."""
        return everywhere.reshape(*everywhere.shape[:-2], *self._shape, self._length)[..., self._positions]

    def counts(self, thresholds: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """#{σ > τ} for thresholds (K,) with its bounds, (K, N, b) each."""
        lower, upper = self.limit.new_empty(2, len(thresholds), *self.limit.shape)
        for k, tau in enumerate(thresholds):
            lower[k], upper[k] = self.bisect(tau.expand(len(self.limit)))
        return self.resolve(thresholds, lower, upper, self.wanted & (lower != upper))

    def bisect(self, threshold: Tensor) -> tuple[Tensor, Tensor]:
        """Certified bounds (N, b) on the number of σ above a threshold of each group, (N,)."""
        # After every step lower ≤ #{σ > τ} ≤ upper at every position: an elimination at a shift counts exactly for some
        # threshold within its stated uncertainty, of singular values within `error` of those of H_i. So a count at a
        # shift that lies above τ by more than both is a lower bound, one at a shift below it an upper bound, and
        # bounds only ever close in (maximum, minimum).
        # Shifts go just above and just below τ, farther away where the last one was too near to be certain. What is
        # unresolved after both, or after `rounds` steps, is left to `resolve`, which takes singular values.
        bounds = {1: torch.zeros_like(self.limit), -1: self.limit.clone()}
        certain = {side: torch.zeros_like(self.wanted) for side in bounds}
        first = torch.maximum(2 * self.error[:, 0], self._first_gap * threshold)
        gap = {side: first for side in bounds}
        for attempt in range(self.rounds):
            side = 1 if attempt % 2 == 0 else -1
            unresolved = self.wanted & (bounds[1] < bounds[-1]) & ~(certain[1] & certain[-1])
            if attempt >= 2 and int(unresolved.sum()) <= _FEW:
                break
            active = (unresolved & ~certain[side]).any(-1)
            active = (active & (threshold + side * gap[side] > 0)).nonzero().squeeze(-1)
            if not active.numel():
                continue
            end_if_unwanted()
            count, uncertainty = self.eliminations.at(active).counts((threshold + side * gap[side])[active])
            distance = uncertainty + self.error[active]
            far = distance <= gap[side][active, None]
            closer = torch.maximum if side > 0 else torch.minimum
            bounds[side][active] = torch.where(far, closer(bounds[side][active], count), bounds[side][active])
            certain[side][active] |= far
            needed = torch.where(unresolved[active] & torch.isfinite(distance), distance, 0).amax(-1)
            gap[side] = gap[side].index_put((active,), torch.maximum(gap[side][active], 1.5 * needed))
        return bounds[1], bounds[-1]

    def resolve(
        self, tau: Tensor, lower: Tensor, upper: Tensor, left: Tensor, relative: bool = False
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Counts above τ (K,), or τ σ_1, with bounds (K, N, b): their middle, or where left, by singular values."""
        count = torch.where(left, lower, (lower + upper) // 2)
        # Where squares of entries are left, some entry is not 0.
        if (left & (self.squared_norms == 0)).any():
            # Those of a block of zeros are known: none is above a threshold, but below the error nothing is excluded.
            zero = left & self.eliminations.are_zero()
            left = left & ~zero
            if not relative:
                upper = torch.where(zero & (tau[:, None, None] > self.own_error), lower, upper)
        # Singular values of a position serve all thresholds.
        for at, values in self._spectra(left.any(0)):
            exact = tau * values[:, :1] if relative else tau.expand(len(values), -1)
            slack = self.own_error[at][:, None] * (1 + tau if relative else 1)
            least, most = (part.mT for part in count_bounds(values, slack, exact, self.limit[at]))
            every = slice(None), *at
            closest, farthest = torch.maximum(lower[every], least), torch.minimum(upper[every], most)
            # Bounds that contradict each other are none.
            sound = closest <= farthest
            lower[every], upper[every] = torch.where(sound, closest, least), torch.where(sound, farthest, most)
            count[every] = (values[:, None] > exact[..., None]).sum(-1).mT.clamp(lower[every], upper[every])
        return count, lower, upper

    @ComputedOnce
    def largest(self) -> tuple[Tensor, Tensor]:
        """What the eliminations know of σ_1 of every position, see `Eliminations.largest`."""
        return self.eliminations.largest()

    def above_all(self, chosen: Tensor) -> Tensor:
        """Upper bounds on σ_1 at chosen positions, at most `_ABOVE` above it where eliminations are certain, (N, b)."""
        low, high = self.largest
        bound = self.eliminations.norm_bound()
        high = torch.fmin(high, bound[:, None])
        least = torch.where(bound > 0, torch.finfo(low.dtype).eps * bound, torch.ones_like(bound))
        tried = ~chosen
        for _ in range(self.rounds):
            unresolved = (high > (1 + _ABOVE) * low) & ~tried
            active = unresolved.any(-1).nonzero().squeeze(-1)
            if not active.numel():
                break
            outermost = torch.where(unresolved, low, 0)[active].amax(-1)
            shift = torch.maximum((1 + _ABOVE / 2) * outermost, least[active])
            count, uncertainty = self.eliminations.at(active).counts(shift)
            certain = shift[:, None] + uncertainty + self.error[active]
            high[active] = torch.where((count == 0) & (certain < high[active]), certain, high[active])
            tried[active] |= low[active] >= outermost[:, None]
        return torch.maximum(high, low)

    def entropies(self, accuracy: float) -> tuple[Tensor, Tensor]:
        """Entropy-ESS to a relative accuracy and a bound on its error."""
        bound = self.eliminations.norm_bound()
        empty = self.squared_norms.sqrt() <= self.own_error
        ess, unknown = torch.zeros_like(self.squared_norms), empty & self.wanted
        if unknown.any():
            # Squares of small entries may have vanished.
            unknown = unknown & ~((self.squared_norms == 0) & self.eliminations.are_zero())
        error = torch.where(unknown, self.limit, torch.zeros_like(ess))
        unresolved, scale = self.wanted & ~empty, torch.where(bound > 0, bound, torch.ones_like(bound))
        while remaining := int(unresolved.sum()):
            by_shifts = self._by_shifts(accuracy, scale, unresolved)
            ess, error = (torch.where(unresolved, new, old) for new, old in zip(by_shifts, (ess, error), strict=True))
            unresolved = unresolved & ~(error <= accuracy * ess)
            # Where Σσ is small beside the scale, one that suits it helps; it does not pay for a few positions whose
            # singular values cost less.
            evaluations = _SHIFTS * int(unresolved.any(-1).sum())
            few = min(_WORTH_ANOTHER_SCALE[0] * remaining, evaluations / self.eliminations.evaluations_per_spectrum)
            if not few < int(unresolved.sum()) < _WORTH_ANOTHER_SCALE[1] * remaining:
                break
            scale = torch.where(unresolved, self.above_all(unresolved), 0).amax(-1)
            scale = torch.where(scale > 0, scale, bound.clamp(min=UNDERFLOW))
        for at, values in self._spectra(unresolved):
            delta = self.own_error[at]
            exact = torch.where(values[:, 0] > delta, effective_rank(values), 0.0)
            ess, error = ess.index_put(at, exact), error.index_put(at, entropy_bound(values, delta, exact))
        return ess, error

    def _by_shifts(self, accuracy: float, scale: Tensor, unresolved: Tensor) -> tuple[Tensor, Tensor]:
        """Entropy-ESS and its bound at unresolved positions, with a bound on their σ_1 as the scale, (N,)."""
        rank = torch.where(unresolved, self.limit.clamp(max=self.eliminations.order), 0)
        ess, error = torch.zeros_like(self.squared_norms), torch.zeros_like(self.squared_norms)
        for rule in rules_from(accuracy, int(rank.max())):
            estimates = (self.squared_norms, scale, rank, self.limit, self._mean_error)
            ess, error = entropies(rule, accuracy, self._log_determinants, *estimates)
            left = unresolved & ~(error <= accuracy * ess)
            if int(left.sum()) <= _WORTH_ANOTHER_SCALE[0] * int(unresolved.sum()):
                break
        return ess, error

    def _log_determinants(self, groups: Tensor, shift: Tensor) -> Tensor:
        end_if_unwanted()
        return self.eliminations.at(groups).log_determinants(shift)

    def _spectra(self, chosen: Tensor) -> Iterator[tuple[tuple[Tensor, Tensor], Tensor]]:
        """Singular values at chosen positions, in portions whose matrices may be held at once."""
        group, offset = chosen.nonzero(as_tuple=True)
        for first in range(0, group.shape[0], self._portion):
            at = group[first : first + self._portion], offset[first : first + self._portion]
            yield at, self.eliminations.spectra(*at)
