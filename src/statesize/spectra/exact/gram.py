"""Every singular value of a few long blocks from HᵀH, and from H itself where that leaves an answer open."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar, cast

import torch
from torch import Tensor

from statesize.operators import Operator
from statesize.parallel.threads import end_if_unwanted
from statesize.spectra.cut import Cut
from statesize.spectra.engine import Counts, HankelBlocks
from statesize.spectra.exact.dense import DenseEngine, block_spectra
from statesize.spectra.spectrum import ROUND_OFF, UNDERFLOW, effective_rank, entropy_bound, frobenius_norm

_linalg = cast("Any", torch.linalg)
# Columns of HᵀH that one product makes, as far as the diagonal: half of them are never made.
_COLUMNS = 128
_Answer = TypeVar("_Answer")


@dataclass(frozen=True)
class GramEngine(DenseEngine):
    """`torch.linalg.eigvalsh(HᵀH)` in a loop over i, for long blocks about three times as fast as singular values."""

    name = "gram"
    outputs = frozenset(("counts", "entropy"))
    windows = False
    squares = True

    @torch.no_grad()
    def blocks(self, operator: Operator, cut: Cut) -> GramBlocks:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The blocks, as they are in T; without gradients."""
        return GramBlocks(self._taken(operator, cut), operator, cut)

    def slower_reason(self, operator: Operator, cut: Cut, outputs: tuple[str, ...]) -> None:
        """None: "auto" asks it last, where `dense` is slower."""


class GramBlocks(HankelBlocks):
    """The blocks by eigenvalues of HᵀH; those of positions that leave an answer open are decomposed themselves."""

    def __init__(self, take: Callable[[int], Tensor], operator: Operator, cut: Cut) -> None:
        self._take, self._cut, self._limit = take, cut, cut.limits()
        shape = (*operator.batch_shape, len(cut.positions))
        # σ̂, descending, and how far each may be off.
        self._values = torch.zeros(*shape, max(cut.largest_rank(), 1), dtype=torch.float64, device=operator.device)
        self._errors = torch.zeros_like(self._values)
        self.error_bound = self._values.new_zeros(shape)
        self._decomposed = [False] * len(cut.positions)
        for place, position in enumerate(cut.positions):
            values, errors = _gram_values(take(position))
            self._set(place, values, errors)
            if bool(((values[..., 0] <= errors[..., 0]) & (errors[..., 0] > 0)).any()):
                # Its squares are lost to underflow.
                self._decompose(place)

    def norms(self) -> Tensor:
        """‖H_i‖_F, (..., P)."""
        return frobenius_norm(self._values[..., None])

    def counts(self, thresholds: Tensor) -> Counts:
        """#{σ > τ} for absolute thresholds (K,)."""
        return self._settled(partial(self._count, thresholds, relative=False), _is_open)

    def relative_counts(self, ratios: Tensor, accuracy: float = 0.0) -> Counts:
        """#{σ > ρ σ_1} for ratios (R,); exact whatever the accuracy."""
        del accuracy
        return self._settled(partial(self._count, ratios, relative=True), _is_open)

    def entropies(self, accuracy: float) -> tuple[Tensor, Tensor]:
        """Entropy-ESS to a relative accuracy and a bound on its error, both (..., P)."""
        return self._settled(self._entropy, lambda found: found[1] > accuracy * found[0])

    def _settled(self, answer: Callable[[], _Answer], is_open: Callable[[_Answer], Tensor]) -> _Answer:
        """An answer, once more after the positions that it leaves open are decomposed."""
        undecided = is_open(found := answer())
        places = [
            place for place, done in enumerate(self._decomposed) if not done and bool(undecided[..., place].any())
        ]
        for place in places:
            self._decompose(place)
        return answer() if places else found

    def _decompose(self, place: int) -> None:
        block = self._take(self._cut.positions[place]).unsqueeze(-3)
        spectrum = block_spectra([block], self._limit[place : place + 1], block[..., 0, 0, :0])
        self._set(place, spectrum.values[..., 0, :], spectrum.error_bound.expand(spectrum.values.shape[:-1]))
        self._decomposed[place] = True

    def _set(self, place: int, values: Tensor, errors: Tensor) -> None:
        n = values.shape[-1]
        self._values[..., place, :n], self._errors[..., place, :n] = values, errors
        self.error_bound[..., place] = errors.amax(-1)

    def _count(self, thresholds: Tensor, *, relative: bool) -> Counts:
        values, errors = self._values[..., None, :], self._errors[..., None, :]
        scale, uncertainty = (self._values[..., :1], self._errors[..., :1]) if relative else (1.0, 0.0)
        at, off = (thresholds * part for part in (scale, uncertainty))
        at, off = (part.expand(*self.error_bound.shape, -1)[..., None] for part in (at, off))
        count, lower, upper = (
            (sigma > tau).sum(-1)
            for sigma, tau in ((values, at), (values - errors, at + off), (values + errors, at - off))
        )
        most = self._limit[:, None].to(upper.device)
        return Counts(count, lower, torch.minimum(upper, most))

    def _entropy(self) -> tuple[Tensor, Tensor]:
        alive = self._values[..., :1] > self._errors[..., :1]
        entropy = torch.where(alive.any(-1), effective_rank(self._values), 0.0)
        return entropy, entropy_bound(self._values, self._errors.mean(-1), entropy)


def _is_open(counts: Counts) -> Tensor:
    return (counts.upper > counts.lower).any(-1)


def _gram_values(block: Tensor) -> tuple[Tensor, Tensor]:
    """σ̂ of H (..., rows, columns), descending, and how far each may be off, (..., min(rows, columns)) each."""
    block = block if block.shape[-2] >= block.shape[-1] else block.mT
    n = block.shape[-1]
    gram = block.new_zeros(*block.shape[:-2], n, n)
    for first in range(0, n, _COLUMNS):
        end_if_unwanted()
        last = min(first + _COLUMNS, n)
        gram[..., first:last, :last] = block[..., first:last].mT @ block[..., :last]
    squares = _linalg.eigvalsh(gram).flip(-1).clamp(min=0)
    energy = gram.diagonal(dim1=-2, dim2=-1).sum(-1, keepdim=True)
    # The product and the decomposition put each σ² off by at most this, and |σ̂ − σ| = |σ̂² − σ²| / (σ̂ + σ).
    off = ROUND_OFF * torch.finfo(torch.float64).eps * (energy + n**0.5 * squares[..., :1])
    values = squares.sqrt()
    holds = block.ne(0).any(-1).any(-1, keepdim=True) if bool((energy == 0).any()) else energy > 0
    errors = torch.minimum(off.sqrt(), off / values.clamp(min=UNDERFLOW)) + UNDERFLOW * holds.double()
    return values, errors
