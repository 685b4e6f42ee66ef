"""Blocks of a convolution: decomposed, bounded, and better answers about single ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor

from statesize.operators import Convolution
from statesize.spectra.cut import Cut
from statesize.spectra.engine import Counts, HankelBlocks
from statesize.spectra.exact.dense import block_spectrum, joined_spectra
from statesize.spectra.spectrum import Spectrum

_fft = cast("Any", torch.fft)
# Round-off of the transform, far below √N · log₂ N · eps.
_SLACK = 1e-10


def decomposed(operator: Convolution, cut: Cut) -> Spectrum:
    """All singular values, one decomposition for each shape that a block can have; differentiable."""
    # With its columns in reverse order, H_i of a kernel k is the Hankel matrix k_{1+r+c} of L − i rows and i
    # columns. So H_i and H_{L−i} are transposes of each other, windows of one size are all equal, and beyond the
    # last tap K − 1 rows and columns are zero: of a short kernel no more than K − 1 blocks differ.
    kernel = operator.kernel
    shapes = block_shapes(cut, kernel.shape[-1])
    distinct = {shape: index for index, shape in enumerate(dict.fromkeys(shapes))}
    spectra = [block_spectrum(hankel_matrix(kernel, *shape)[..., None, :, :]) for shape in distinct]
    spectrum = joined_spectra(spectra, cut, kernel.new_zeros((*kernel.shape[:-1], 0)))
    if not distinct:
        return spectrum
    at = torch.tensor([distinct[shape] for shape in shapes], dtype=torch.int64, device=kernel.device)
    return replace(spectrum, values=spectrum.values[..., at, :], error_bound=spectrum.error_bound[..., at])


def block_shapes(cut: Cut, taps: int) -> list[tuple[int, int]]:
    """(rows, columns) at each position of what a kernel can make different from 0, the larger number first."""
    sides = [[max(1, min(side, taps - 1)) for side in (cut.rows(i), cut.columns(i))] for i in cut.positions]
    return [(max(pair), min(pair)) for pair in sides]


def hankel_matrix(kernel: Tensor, rows: int, columns: int) -> Tensor:
    """k_{1+r+c}, (..., rows, columns), of a kernel (..., K) that is zero from K on."""
    padded = torch.nn.functional.pad(kernel, (0, max(0, rows + columns - kernel.shape[-1])))
    device = kernel.device
    lag = 1 + torch.arange(rows, device=device)[:, None] + torch.arange(columns, device=device)
    return padded[..., lag]


def circulant_norm(kernel: Tensor) -> Tensor:
    """An upper bound on σ_1 of T[i:, :i] for all i, (...), T of the kernel k_1 … k_{L−1}, (..., L − 1)."""
    # All these blocks are parts of a circulant matrix of any order N ≥ L, because i − j is in 1 … L − 1 there. The norm
    # of that is max |DFT_N(k)|.
    spectrum: Tensor = _fft.rfft(kernel, power_of_two(kernel.shape[-1] + 1))
    return spectrum.abs().amax(-1) * (1 + _SLACK)


def power_of_two(least: int) -> int:
    """The smallest power of 2 that is not below a positive number: lengths that are transformed fast."""
    return 1 << (least - 1).bit_length()


class SecondOpinion(HankelBlocks):
    """Blocks of batch shape (m,) of which those are computed again whose answer the error leaves unresolved."""

    # `again`: blocks of batch shape (1,) for one batch entry at indices out of 0 … P − 1, (q,) int64.
    def __init__(self, blocks: HankelBlocks, again: Callable[[int, Tensor], HankelBlocks]) -> None:
        self._blocks = blocks
        self._again = again
        self.error_bound = blocks.error_bound

    def norms(self) -> Tensor:
        """‖H_i‖_F, (m, P), with the error of the blocks."""
        return self._blocks.norms()

    def counts(self, thresholds: Tensor) -> Counts:
        """#{σ > τ} for absolute thresholds (K,)."""
        return self._counted(lambda blocks: blocks.counts(thresholds), 0.0)

    def relative_counts(self, ratios: Tensor, accuracy: float = 0.0) -> Counts:
        """#{σ > ρ σ_1} for ratios (R,)."""
        return self._counted(lambda blocks: blocks.relative_counts(ratios, accuracy), accuracy)

    def entropies(self, accuracy: float) -> tuple[Tensor, Tensor]:
        """Entropy-ESS to a relative accuracy and a bound on its error, both (m, P)."""
        entropy, bound = self._blocks.entropies(accuracy)
        for entry, indices in self._unresolved(bound > accuracy * entropy):
            better, close = self._again(entry, indices).entropies(accuracy)
            entropy[entry, indices], bound[entry, indices] = better[0], close[0]
        return entropy, bound

    def _counted(self, query: Callable[[HankelBlocks], Counts], accuracy: float) -> Counts:
        counts = query(self._blocks)
        parts = counts.count.clone(), counts.lower.clone(), counts.upper.clone()
        apart = (accuracy * counts.upper).floor().clamp(min=float(accuracy > 0))
        for entry, indices in self._unresolved((counts.upper - counts.lower > apart).any(-1)):
            better = query(self._again(entry, indices))
            for part, answer in zip(parts, (better.count, better.lower, better.upper), strict=True):
                part[entry, indices] = answer[0]
        return Counts(*parts)

    @staticmethod
    def _unresolved(unknown: Tensor) -> list[tuple[int, Tensor]]:
        entries = unknown.any(-1).nonzero().squeeze(-1)
        return [(int(entry), unknown[entry].nonzero().squeeze(-1)) for entry in entries]
