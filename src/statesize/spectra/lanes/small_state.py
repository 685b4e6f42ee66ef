"""All singular values of many small diagonal recurrences, several of them in lanes side by side.

σ² are the eigenvalues of MᵀM with M = S_i L_i, the square-root factors carried by Givens rotations
(docs/appendix/engine-mathematics.md, "Square roots of the Gramians"). Squaring once costs digits of the small σ:
an error ε of σ², 8 eps ‖M‖_F², is an error of √ε = 4e-8 ‖M‖_F on a σ near 0. Counts compare squares, so a tolerance τ
is in doubt only within ε / 2τ of a σ; recurrences with such a doubt are computed again by singular value decompositions
of M.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from torch import Tensor

from statesize.operators import Operator, Recurrence
from statesize.operators.transition import DiagonalTransition
from statesize.spectra.cut import Cut
from statesize.spectra.engine import DOUBLE, OUTPUTS, Counts, Engine, Footprint, largest_state
from statesize.spectra.exact.square_root import square_root_spectrum
from statesize.spectra.lanes.eigenvalues import WIDTH, Array
from statesize.spectra.lanes.spectra import CHUNK, squared_spectra
from statesize.spectra.spectrum import UNDERFLOW, Spectrum, count_bounds, entropy_bound, largest

# States up to which it works; kernels are compiled for any number.
_MOST_STATES = 32
# Error of the eigenvalues of MᵀM, in units of ‖M‖_F².
_SQUARED_ERROR = 8 * float(np.finfo(np.float64).eps)
# Batch entries whose singular values are computed again at once.
_RECOMPUTED_AT_ONCE = 32


@dataclass(frozen=True)
class SmallStateEngine(Engine):
    """Real diagonal recurrences of few states, several of them side by side in the processor's vectors."""

    name = "small_state"
    outputs = frozenset(OUTPUTS)
    works_on = (Recurrence,)
    operators = "real diagonal recurrences of at most 32 states"
    block_bytes = 2**27

    def supports(self, operator: Operator) -> bool:
        """Whether it is a real diagonal recurrence of at most 32 states."""
        if not isinstance(operator, Recurrence) or operator.is_complex:
            return False
        return isinstance(operator.transition, DiagonalTransition) and operator.B.shape[-1] <= _MOST_STATES

    def slower_reason(self, operator: Operator, cut: Cut, outputs: tuple[str, ...]) -> str | None:
        """Where small singular values are requested."""
        if "values" in outputs:
            return "squares its numbers, so that it knows small singular values to 4e-8 σ_1 only"
        return None

    @torch.no_grad()
    def blocks(self, operator: Operator, cut: Cut) -> SquaredSpectrum:
        """The spectrum, r = min(n, the largest min(rows, columns)); without gradients."""
        recurrence = cast("Recurrence", operator)
        shape = recurrence.batch_shape
        requested = torch.tensor(cut.positions, dtype=torch.int64)
        positions, order = cast("tuple[Tensor, Tensor]", requested.unique(return_inverse=True))
        r = min(recurrence.B.shape[-1], cut.largest_rank())
        squares = torch.zeros(shape.numel(), len(positions), r, dtype=torch.float64)
        errors, totals = squares.new_zeros(2, *squares.shape[:-1]), squares.new_zeros(shape.numel())
        limits = torch.minimum(positions, cut.length - positions)
        results = (limits.numpy(), squares.numpy(), errors.numpy(), totals.numpy())
        if squares.numel():  # arrays without entries are of another type to numba, which would compile all again
            squared_spectra(*_arrays(recurrence), positions.numpy(), *results)
        # As in `propagation_error`: what the step errors can do at most, or what of them is not yet forgotten.
        local, last = errors
        carried = torch.minimum(totals[:, None], torch.nan_to_num(local, nan=torch.inf)) + last + UNDERFLOW
        if not torch.equal(requested, positions):
            squares, carried = squares[:, order], carried[:, order]
        squares, carried = (part.reshape(*shape, *part.shape[1:]) for part in (squares, carried))
        epsilon = _SQUARED_ERROR * squares.sum(-1)
        spectrum = (squares.sqrt(), epsilon.sqrt() + carried, cut.limits())
        return SquaredSpectrum(*spectrum, recurrence, cut, squares, epsilon, carried)

    def footprint(self, operator: Operator, cut: Cut) -> Footprint:
        """What the kernels hold at each position, and what is computed from the singular values."""
        states = largest_state(operator)
        n = states + states % 2
        # Factors of the channels that are computed side by side: at the ends of all chunks, and in one of them.
        factors = DOUBLE * WIDTH * ((cut.length // CHUNK + CHUNK + 3) * n * (n + 2) // 2 + 3 * cut.length)
        return Footprint(DOUBLE * cut.length * (24 + 3 * states), factors)


def _arrays(recurrence: Recurrence) -> list[Array]:
    # (entries, L, n, 2), of which the last dimension is one number twice: arrays that are not contiguous are all of one
    # type to numba, which would compile the kernels again for each mixture of contiguous and other ones.
    shape = torch.Size((*recurrence.batch_shape, *recurrence.B.shape[-2:]))
    parts = (recurrence.A, recurrence.B, recurrence.C)
    flat = (part.expand(shape).reshape(recurrence.batch_shape.numel(), *shape[-2:]) for part in parts)
    return [part.resolve_neg()[..., None].expand(*part.shape, 2).numpy() for part in flat]


@dataclass(frozen=True, eq=False)
class SquaredSpectrum(Spectrum):
    """Singular values from their squares, with a way back to the recurrence where that is not enough."""

    recurrence: Recurrence
    cut: Cut
    squares: Tensor  # σ̂², (..., P, r)
    squared_error: Tensor  # ε of σ̂² for being computed as a square, (..., P)
    carried_error: Tensor  # of σ for the round-off of the factors, (..., P)

    def norms(self) -> Tensor:
        """‖H_i‖_F, (..., P)."""
        return self.squares.sum(-1).sqrt()

    def counts(self, thresholds: Tensor) -> Counts:
        """#{σ > τ} for absolute thresholds (K,)."""
        tau = thresholds.expand(*self.error_bound.shape, -1)
        return self._resolved(tau, self.carried_error[..., None], lambda part: part.counts(thresholds))

    def relative_counts(self, ratios: Tensor, accuracy: float = 0.0) -> Counts:
        """#{σ > ρ σ_1} for ratios (R,)."""
        top = largest(self.values)
        # σ_1 itself is known to ε / σ_1 and what the factors lost.
        doubt = self.carried_error + self.squared_error / torch.where(top > 0, top, torch.ones_like(top))
        slack = self.carried_error[..., None] + ratios * doubt[..., None]
        return self._resolved(ratios * top[..., None], slack, lambda part: part.relative_counts(ratios))

    def entropies(self, accuracy: float) -> tuple[Tensor, Tensor]:
        """Entropy-ESS to a relative accuracy and a bound on its error, both (..., P)."""
        total, top = self.values.sum(-1), largest(self.values)
        # ln S − (Σ σ ln σ) / S, which needs one logarithm and one product per singular value.
        exponent = total.log() - torch.xlogy(self.values, self.values).sum(-1) / total
        # The entropy-ESS of a single value is 1, which the bound knows and the logarithms miss by a little.
        most = max(1, self.values.shape[-1])
        entropy = torch.where(top > self.error_bound, exponent.exp().clamp(1, most), 0.0)
        bound = entropy_bound(self.values, self.error_bound, entropy)
        for entry, exact in self._recomputed((bound > accuracy * entropy).any(-1)):
            entropy[entry], bound[entry] = exact.entropies(accuracy)
        return entropy, bound

    def _resolved(self, threshold: Tensor, slack: Tensor, again: Callable[[Spectrum], Counts]) -> Counts:
        level = threshold.square()
        doubt = self.squared_error[..., None] + (2 * threshold + slack) * slack
        lower, upper = count_bounds(self.squares, doubt, level, self.limit)
        unresolved = lower != upper
        if not bool(unresolved.any()):
            return Counts(lower, lower, upper)
        count = (self.squares[..., None, :] > level[..., None]).sum(-1)
        for entry, exact in self._recomputed(unresolved.any(-1).any(-1)):
            better = again(exact)
            count[entry], lower[entry], upper[entry] = better.count, better.lower, better.upper
        return Counts(count, lower, upper)

    def _recomputed(self, entries: Tensor) -> Iterator[tuple[tuple[Tensor, ...], Spectrum]]:
        """Spectra from square-root factors of some batch entries, a few at a time."""
        if entries.ndim == 0:
            if bool(entries):
                yield (), square_root_spectrum(self.recurrence, self.cut)
            return
        chosen = entries.nonzero()
        for first in range(0, chosen.shape[0], _RECOMPUTED_AT_ONCE):
            entry = chosen[first : first + _RECOMPUTED_AT_ONCE].unbind(-1)
            yield entry, square_root_spectrum(self.recurrence[entry], self.cut)
