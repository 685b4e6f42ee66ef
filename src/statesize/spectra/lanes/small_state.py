"""All singular values of many small diagonal recurrences, several of them in lanes side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from torch import Tensor

from statesize.operators import Operator, Recurrence
from statesize.operators.transition import DiagonalTransition
from statesize.spectra.bounds import UNDERFLOW, count_bounds, entropy_bound
from statesize.spectra.cut import Cut
from statesize.spectra.effective_rank import largest
from statesize.spectra.engine import Counts
from statesize.spectra.exact.square_root import square_root_singular_values
from statesize.spectra.lanes.eigenvalues import WIDTH, Array
from statesize.spectra.lanes.spectra import squared_spectra
from statesize.spectra.spectrum import Spectrum

LARGEST_STATE = 32
LANES = WIDTH
"""Recurrences computed side by side; fewer leave the processor's vectors half empty."""
# Error of the eigenvalues of MᵀM, in units of ‖M‖_F².
_SQUARED_ERROR = 8 * float(np.finfo(np.float64).eps)
# Batch entries whose singular values are computed again at once.
_RECOMPUTED_AT_ONCE = 32


def has_small_state(operator: Operator) -> bool:
    """Whether an operator is a real diagonal recurrence of at most 32 states."""
    if not isinstance(operator, Recurrence) or operator.is_complex:
        return False
    return isinstance(operator.transition, DiagonalTransition) and operator.B.shape[-1] <= LARGEST_STATE


@torch.no_grad()
def small_state_spectrum(recurrence: Recurrence, cut: Cut) -> SquaredSpectrum:
    """σ² = eig(MᵀM) with M = S_i L_i, the square-root factors carried from position to position by Givens rotations.

    Squaring once costs digits of the small σ: an error ε of σ², 8 eps ‖M‖_F², is an error of √ε = 4e-8 ‖M‖_F on a σ
    near 0. Counts compare squares, so that a tolerance τ is in doubt only within ε / 2τ of a σ; recurrences with such
    a doubt are computed again by singular value decompositions of M.

    Args:
        recurrence: Real, diagonal or scalar, of at most 32 states.
        cut: Which blocks, not windowed.

    Returns:
        The spectrum, r = min(n, the largest min(rows, columns)); without gradients.
    """
    shape, device = recurrence.batch_shape, recurrence.device
    asked = torch.tensor(cut.positions, dtype=torch.int64)
    positions, order = cast("tuple[Tensor, Tensor]", asked.unique(return_inverse=True))
    r = min(recurrence.B.shape[-1], cut.largest_rank())
    squares = torch.zeros(shape.numel(), len(positions), r, dtype=torch.float64)
    errors, totals = squares.new_zeros(2, *squares.shape[:-1]), squares.new_zeros(shape.numel())
    limits = torch.minimum(positions, cut.length - positions)
    results = (limits.numpy(), squares.numpy(), errors.numpy(), totals.numpy())
    squared_spectra(*_arrays(recurrence), positions.numpy(), *results)
    # As in `propagation_error`: what the step errors can do at most, or what of them is not yet forgotten.
    local, last = errors
    carried = torch.minimum(totals[:, None], torch.nan_to_num(local, nan=torch.inf)) + last + UNDERFLOW
    if not torch.equal(asked, positions):
        squares, carried = squares[:, order], carried[:, order]
    squares, carried = (part.reshape(*shape, *part.shape[1:]).to(device) for part in (squares, carried))
    epsilon = _SQUARED_ERROR * squares.sum(-1)
    known = (squares.sqrt(), epsilon.sqrt() + carried, cut.limits(device))
    return SquaredSpectrum(*known, recurrence, cut, squares, epsilon, carried)


def _arrays(recurrence: Recurrence) -> list[Array]:
    # (entries, L, n, 2), of which the last dimension is one number twice: arrays that are not contiguous are all of one
    # type to numba, which would compile the kernels again for each mixture of contiguous and other ones.
    shape = torch.Size((*recurrence.batch_shape, *recurrence.B.shape[-2:]))
    parts = (recurrence.A, recurrence.B, recurrence.C)
    flat = (part.expand(shape).reshape(recurrence.batch_shape.numel(), *shape[-2:]).cpu() for part in parts)
    return [part[..., None].expand(*part.shape, 2).numpy() for part in flat]


@dataclass(frozen=True, eq=False)
class SquaredSpectrum(Spectrum):
    """Singular values from their squares, with a way back to the recurrence where that is not enough.

    Attributes:
        recurrence: What was measured.
        cut: Which blocks.
        squares: σ̂², (..., P, r).
        squared_error: ε, what σ̂² may be off for having been computed as a square, (..., P).
        carried_error: What σ may be off for the round-off of the factors, (..., P).
    """

    recurrence: Recurrence
    cut: Cut
    squares: Tensor
    squared_error: Tensor
    carried_error: Tensor

    def norms(self) -> Tensor:
        """‖H_i‖_F, (..., P)."""
        return self.squares.sum(-1).sqrt()

    def counts(self, thresholds: Tensor) -> Counts:
        """#{σ > τ} for absolute thresholds (K,)."""
        tau = thresholds.expand(*self.error_bound.shape, -1)
        return self._settled(tau, self.carried_error[..., None], lambda part: part.counts(thresholds))

    def relative_counts(self, ratios: Tensor, accuracy: float = 0.0) -> Counts:
        """#{σ > ρ σ_1} for ratios (R,)."""
        top = largest(self.values)
        # σ_1 itself is known to ε / σ_1 and what the factors lost.
        doubt = self.carried_error + self.squared_error / torch.where(top > 0, top, torch.ones_like(top))
        slack = self.carried_error[..., None] + ratios * doubt[..., None]
        return self._settled(ratios * top[..., None], slack, lambda part: part.relative_counts(ratios))

    def entropies(self, accuracy: float) -> tuple[Tensor, Tensor]:
        """Entropy-ESS to a relative accuracy and a bound on its error, both (..., P)."""
        total, top = self.values.sum(-1), largest(self.values)
        # ln S − (Σ σ ln σ) / S, which needs one logarithm and one product a singular value.
        exponent = total.log() - torch.xlogy(self.values, self.values).sum(-1) / total
        # Of a single value it is 1, which the bound knows and the logarithms miss by a little.
        most = max(1, self.values.shape[-1])
        entropy = torch.where(top > self.error_bound, exponent.exp().clamp(1, most), 0.0)
        bound = entropy_bound(self.values, self.error_bound, entropy)
        for place, exact in self._recomputed((bound > accuracy * entropy).any(-1)):
            entropy[place], bound[place] = exact.entropies(accuracy)
        return entropy, bound

    def _settled(self, threshold: Tensor, slack: Tensor, again: Callable[[Spectrum], Counts]) -> Counts:
        level = threshold.square()
        doubt = self.squared_error[..., None] + (2 * threshold + slack) * slack
        lower, upper = count_bounds(self.squares, doubt, level, self.limit)
        open_ = lower != upper
        if not bool(open_.any()):
            return Counts(lower, lower, upper)
        count = (self.squares[..., None, :] > level[..., None]).sum(-1)
        for place, exact in self._recomputed(open_.any(-1).any(-1)):
            found = again(exact)
            count[place], lower[place], upper[place] = found.count, found.lower, found.upper
        return Counts(count, lower, upper)

    def _recomputed(self, entries: Tensor) -> Iterator[tuple[tuple[Tensor, ...], Spectrum]]:
        """Spectra from square-root factors of some batch entries, a few at a time."""
        if entries.ndim == 0:
            if bool(entries):
                yield (), square_root_singular_values(self.recurrence, self.cut)
            return
        chosen = entries.nonzero()
        for first in range(0, chosen.shape[0], _RECOMPUTED_AT_ONCE):
            place = chosen[first : first + _RECOMPUTED_AT_ONCE].unbind(-1)
            yield place, square_root_singular_values(self.recurrence[place], self.cut)
