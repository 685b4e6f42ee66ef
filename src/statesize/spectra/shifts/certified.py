"""Counts and entropies from shifted eliminations, each certified, with singular values where a certificate fails."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol, Self

import torch
from torch import Tensor

from statesize.errors import EngineError
from statesize.spectra.bounds import UNDERFLOW, count_bounds, entropy_bound
from statesize.spectra.cut import Cut
from statesize.spectra.effective_rank import effective_rank
from statesize.spectra.engine import Counts, HankelBlocks
from statesize.spectra.shifts.quadrature import entropies, rules_from

_FIRST_GAP = 2e-6
# Relative width of a bracket around σ_1 that is not worth another evaluation.
_CLOSE = 4e-3
# Positions for which singular values cost less than another evaluation.
_FEW = 4
# Shares of positions left open by one scale of shifts between which another is tried.
_WORTH_ANOTHER_SCALE = 1 / 64, 3 / 4
# Numbers of the matrices that are decomposed at once when singular values are needed after all.
_DECOMPOSED_AT_ONCE = 2**21


class Eliminations(Protocol):
    """N groups of b consecutive positions that are eliminated together, at any shift."""

    @property
    def width(self) -> int:
        """Positions of a group, b."""
        ...

    @property
    def rounds(self) -> int:
        """Evaluations of a group after which singular values of what is still open cost less."""
        ...

    @property
    def order(self) -> int:
        """Rows and columns of the matrices whose singular values `spectra` takes, together."""
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
        """Some of the groups."""
        ...

    def counts(self, shift: Tensor) -> tuple[Tensor, Tensor]:
        """How many σ exceed τ, (N, b), exact for some threshold within the second result of it."""
        ...

    def log_determinants(self, shift: Tensor) -> Tensor:
        """The logarithms of det(I + HᵀH/s²), (N, b)."""
        ...

    def squared_norms(self) -> Tensor:
        """‖H_i‖_F², (N, b)."""
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


class CertifiedBlocks(HankelBlocks):
    """The blocks H_i of an operator by shifted eliminations.

    Args:
        eliminations: Groups in the order of the flattened batch, then of the positions, from 0 on as far as needed.
        batch_shape: Batch shape of the operator.
        cut: Which blocks, not windowed.
        rank: A bound on the rank of every H_i.
    """

    def __init__(self, eliminations: Eliminations, batch_shape: torch.Size, cut: Cut, rank: int) -> None:
        device, b = eliminations.error.device, eliminations.width
        self._eliminations = eliminations
        self._shape = batch_shape
        self._positions = torch.tensor(cut.positions, dtype=torch.int64, device=device)
        entries = batch_shape.numel()
        groups = eliminations.error.shape[0] // entries if entries else -(-cut.length // b)
        self._padded_length = groups * b
        position = torch.arange(self._padded_length, device=device).reshape(-1, b)
        limit = torch.minimum(position, cut.length - position).clamp(0, rank)
        wanted = torch.isin(position, self._positions)
        self._limit, self._wanted = limit.repeat(entries, 1), wanted.repeat(entries, 1)
        self._squared_norms = eliminations.squared_norms()
        epsilon = 8 * eliminations.order * torch.finfo(torch.float64).eps
        # Of singular values, and of what is eliminated, which all positions of a group share.
        self._own_error = eliminations.error[:, None] + epsilon * self._squared_norms.sqrt() + UNDERFLOW
        roundoff = epsilon * self._squared_norms.amax(-1).sqrt()
        self._error = (eliminations.error + roundoff + UNDERFLOW)[:, None]
        # On average over the singular values of a position; round-off moves no more of them than there are rows.
        self._mean_error = self._error.expand_as(self._limit)
        if eliminations.summed_error is not None:
            summed = (eliminations.summed_error + eliminations.order * roundoff)[:, None]
            mean = summed / self._limit.clamp(min=1) + UNDERFLOW
            self._mean_error = torch.minimum(self._mean_error, mean)
        self._top: tuple[Tensor, Tensor] | None = None
        self.error_bound = self._at_positions(self._own_error)

    def norms(self) -> Tensor:
        """‖H_i‖_F, (..., P)."""
        return self._at_positions(self._squared_norms.sqrt())

    def counts(self, thresholds: Tensor) -> Counts:
        """#{σ > τ} for absolute thresholds (K,)."""
        even = torch.ones_like(self._limit, dtype=thresholds.dtype)
        return self._gathered([self._bracketed(tau * even, tau * even) for tau in thresholds])

    def relative_counts(self, ratios: Tensor, accuracy: float = 0.0) -> Counts:
        """#{σ > ρ σ_1} for ratios (R,)."""
        if not ratios.numel() or not self._wanted.any():
            none = torch.zeros_like(self._limit)
            return self._gathered([(none, none, none)] * ratios.numel())
        low, high = self._largest()
        return self._gathered([self._bracketed(rho * low, rho * high, float(rho)) for rho in ratios])

    def entropies(self, accuracy: float) -> tuple[Tensor, Tensor]:
        """Entropy-ESS to a relative accuracy and a bound on its error, both (..., P)."""
        bound = self._eliminations.norm_bound()
        empty = self._squared_norms.sqrt() <= self._own_error
        ess, error = torch.zeros_like(self._squared_norms), torch.zeros_like(self._squared_norms)
        open_, scale = self._wanted & ~empty, torch.where(bound > 0, bound, torch.ones_like(bound))
        while asked := int(open_.sum()):
            found = self._by_shifts(accuracy, scale, open_)
            ess, error = (torch.where(open_, new, old) for new, old in zip(found, (ess, error), strict=True))
            open_ = open_ & ~(error <= accuracy * ess)
            # Where Σσ is small beside the scale, one that suits it helps; it does not pay for a few positions.
            if not _WORTH_ANOTHER_SCALE[0] * asked < int(open_.sum()) < _WORTH_ANOTHER_SCALE[1] * asked:
                break
            scale = torch.where(open_, self._largest()[1], 0).amax(-1)
            scale = torch.where(scale > 0, scale, bound.clamp(min=UNDERFLOW))
        group, offset = open_.nonzero(as_tuple=True)
        for at in self._portions(group, offset):
            values, delta = self._eliminations.spectra(*at), self._own_error[at]
            exact = torch.where(values[:, 0] > delta, effective_rank(values), 0.0)
            ess, error = ess.index_put(at, exact), error.index_put(at, entropy_bound(values, delta, exact))
        return self._at_positions(ess), self._at_positions(error)

    def singular_values(self) -> Tensor:
        """Not given by this engine.

        Raises:
            EngineError: Always.
        """
        raise EngineError("eliminations give counts and entropies; for all singular values use dense or square_root")

    def _by_shifts(self, accuracy: float, scale: Tensor, open_: Tensor) -> tuple[Tensor, Tensor]:
        """Entropy-ESS and its bound where positions are open, with a bound on their σ_1 as the scale, (N,)."""
        rank = torch.where(open_, self._limit.clamp(max=self._eliminations.order), 0)
        found = torch.zeros_like(self._squared_norms), torch.zeros_like(self._squared_norms)
        for rule in rules_from(accuracy, int(rank.max())):
            given = (self._squared_norms, scale, rank, self._limit, self._mean_error)
            found = entropies(rule, accuracy, self._log_determinants, *given)
            left = open_ & ~(found[1] <= accuracy * found[0])
            if int(left.sum()) <= _WORTH_ANOTHER_SCALE[0] * int(open_.sum()):
                break
        return found

    def _log_determinants(self, groups: Tensor, shift: Tensor) -> Tensor:
        return self._eliminations.at(groups).log_determinants(shift)

    def _bracketed(self, low: Tensor, high: Tensor, ratio: float | None = None) -> tuple[Tensor, Tensor, Tensor]:
        # Counts above thresholds known to lie in [low, high], (N, b), with their bounds; a threshold is the same at all
        # positions, or the ratio times σ_1.
        lower, upper = torch.zeros_like(self._limit), self._limit.clone()
        # A first guess of how far beside a threshold its inertia can be told; too wide costs a few singular values.
        first = torch.maximum(2 * self._error, _FIRST_GAP * high.amax(-1, keepdim=True)).squeeze(-1)
        gap = {1: first, -1: first}
        # What is open between two evaluations right beside it stays so.
        settled, seen_above = torch.zeros_like(self._wanted), torch.zeros_like(self._wanted)
        for attempt in range(self._eliminations.rounds):
            side = 1 if attempt % 2 == 0 else -1
            open_ = self._wanted & (lower < upper) & ~settled
            active = open_.any(-1).nonzero().squeeze(-1)
            if (attempt >= 2 and int(open_.sum()) <= _FEW) or not active.numel():
                break
            shift = _target(low if side < 0 else high, open_, side, attempt)[active] + side * gap[side][active]
            possible = shift > 0
            active, shift = active[possible], shift[possible]
            if not active.numel():
                continue
            found, uncertainty = self._eliminations.at(active).counts(shift)
            reach = uncertainty + self._error[active]
            above = high[active] <= shift[:, None] - reach
            below = low[active] >= shift[:, None] + reach
            lower[active] = torch.where(above, torch.maximum(lower[active], found), lower[active])
            upper[active] = torch.where(below, torch.minimum(upper[active], found), upper[active])
            needed = torch.where(open_[active] & torch.isfinite(reach), reach, 0).amax(-1)
            gap[side] = gap[side].index_put((active,), torch.maximum(gap[side][active], 1.5 * needed))
            if side > 0:
                seen_above = torch.zeros_like(settled).index_put((active,), above)
            elif attempt > 1:
                settled[active] |= seen_above[active] & below
        return self._decided(high, ratio, lower, upper)

    def _decided(
        self, threshold: Tensor, ratio: float | None, lower: Tensor, upper: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Singular values for the positions whose count is still open."""
        count = lower.clone()
        group, offset = (self._wanted & (lower != upper)).nonzero(as_tuple=True)
        for at in self._portions(group, offset):
            values = self._eliminations.spectra(*at)
            exact = (threshold[at] if ratio is None else ratio * values[:, 0])[:, None]
            slack = self._own_error[at][:, None] * (1 if ratio is None else 1 + ratio)
            least, most = count_bounds(values, slack, exact, self._limit[at])
            count[at] = torch.minimum((values > exact).sum(-1), self._limit[at])
            lower[at], upper[at] = least.squeeze(-1), most.squeeze(-1)
        return count, lower, upper

    def _portions(self, group: Tensor, offset: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Positions in portions whose matrices may be held at once."""
        size = max(1, _DECOMPOSED_AT_ONCE // self._eliminations.order**2)
        for first in range(0, group.shape[0], size):
            yield group[first : first + size], offset[first : first + size]

    def _largest(self) -> tuple[Tensor, Tensor]:
        """σ_1 of every position between two numbers, (N, b); above them is a shift that no σ exceeds."""
        if self._top is None:
            low, high = self._eliminations.largest()
            bound = self._eliminations.norm_bound()
            high = torch.fmin(high, bound[:, None])
            least = torch.where(bound > 0, torch.finfo(low.dtype).eps * bound, torch.ones_like(bound))
            tried = torch.zeros_like(self._wanted)
            for _ in range(self._eliminations.rounds):
                open_ = self._wanted & (high > (1 + _CLOSE) * low) & ~tried
                active = open_.any(-1).nonzero().squeeze(-1)
                if not active.numel():
                    break
                outermost = torch.where(open_, low, 0)[active].amax(-1)
                shift = torch.maximum((1 + _CLOSE / 2) * outermost, least[active])
                found, uncertainty = self._eliminations.at(active).counts(shift)
                certain = shift[:, None] + uncertainty + self._error[active]
                high[active] = torch.where((found == 0) & (certain < high[active]), certain, high[active])
                tried[active] |= low[active] >= outermost[:, None]
            self._top = (low - self._error).clamp(min=0), torch.maximum(high, low)
        return self._top

    def _gathered(self, found: list[tuple[Tensor, Tensor, Tensor]]) -> Counts:
        shape = (*self._shape, self._positions.shape[0], len(found))
        if not found:
            return Counts(*(self._limit.new_zeros(shape) for _ in range(3)))
        parts = [torch.stack([self._at_positions(part) for part in column], -1) for column in zip(*found, strict=True)]
        return Counts(*parts)

    def _at_positions(self, everywhere: Tensor) -> Tensor:
        """(N, b) at all positions of all groups to (..., P)."""
        return everywhere.reshape(*self._shape, self._padded_length)[..., self._positions]


def _target(bounds: Tensor, open_: Tensor, side: int, attempt: int) -> Tensor:
    """Where to look next in each group, (N,): the outermost open threshold first, then the one in their middle."""
    if attempt >= 2:
        return torch.nanmedian(torch.where(open_, bounds, torch.nan), -1).values
    return side * torch.where(open_, side * bounds, -torch.inf).amax(-1)
