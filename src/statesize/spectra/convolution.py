"""Convolutions: half the positions of a shorter sequence suffice, by the fastest of four ways for each kernel.

H_i is the Hankel matrix k_{1+r+c} of L − i rows and i columns (see realisation.py), so H_{L−i} = H_iᵀ; and if k_m
is the last tap that is not 0, at most the first m rows and columns are not 0. So the positions up to L' / 2 of a
sequence of L' = min(L, 2 m) suffice, and a short kernel costs the same at any length. Their blocks come

- for short L' or few positions from a decomposition each, or eigenvalues of Gram matrices (`exact`);
- for kernels that a few states make from a realisation, if what it misses is negligible;
- for other kernels of low numerical rank from compressing the past;
- else from tridiagonal cores of T, or again by `exact` where positions are few.

Under windows, and where all singular values are requested, every shape of block is decomposed
(docs/appendix/engine-mathematics.md, "Convolutions").
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import NamedTuple, cast

import torch
from torch import Tensor

from statesize.operators import Convolution, Operator
from statesize.parallel.threads import ComputedOnce
from statesize.spectra.cut import Cut
from statesize.spectra.engine import (
    DOUBLE,
    FALLBACK_BYTES,
    OUTPUTS,
    Counts,
    Engine,
    Footprint,
    HankelBlocks,
    largest_state,
)
from statesize.spectra.exact.dense import SMALL
from statesize.spectra.exact.exact import ExactEngine
from statesize.spectra.realisation import SecondOpinion, decomposed, realise
from statesize.spectra.shifts.bordered import BorderedChunks
from statesize.spectra.shifts.certified import CertifiedBlocks
from statesize.spectra.shifts.streaming import compressed_chunks, is_compressible
from statesize.spectra.shifts.tridiagonal import TridiagonalEngine
from statesize.spectra.spectrum import Spectrum


@dataclass(frozen=True)
class ConvolutionEngine(Engine):
    """Counts and entropies of a convolution by the fastest of four ways for each kernel, or all singular values."""

    quick: float = 2e8  # work of decompositions (rows · columns²) that costs less than any other way
    width: int = 32  # positions per chunk
    vectors: int = 96  # random vectors with which a realisation is tried first
    dropped: float = 1e-11  # singular values that a realisation leaves out, relative to the largest
    close: float = 2e-9  # misfit of a realisation, in units of σ_1, up to which its bounds are taken as they are
    rough: float = 1e-6  # misfit up to which what its bounds leave unresolved is computed in another way

    name = "convolution"
    outputs = frozenset(OUTPUTS)
    works_on = (Convolution,)
    operators = "convolutions"
    windows = True

    def blocks(self, operator: Operator, cut: Cut) -> HankelBlocks:
        """The blocks at the positions that differ, and their indices; gradients flow through singular values only."""
        convolution = cast("Convolution", operator)
        return decomposed(convolution, cut) if cut.windowed else ConvolutionBlocks(convolution, cut, self)

    def kernels(self, convolution: Convolution, cut: Cut) -> tuple[Kernels, Tensor]:
        """Kernels of the flattened batch, and which of the positions that differ stands at each of the cut, (P,)."""
        kernel = convolution.kernel.detach()
        kernel = kernel.reshape(convolution.batch_shape.numel(), kernel.shape[-1])[:, : cut.length]
        taps = (kernel != 0).any(0).nonzero()
        last = max(1, int(taps.max())) if taps.numel() else 1
        length = min(cut.length, 2 * last)
        nearest = [min(i, cut.length - i, length // 2) for i in cut.positions]
        different = {position: index for index, position in enumerate(sorted(set(nearest)))}
        kernel = torch.nn.functional.pad(kernel, (0, max(0, length - kernel.shape[-1])))[:, :length]
        index = torch.tensor([different[i] for i in nearest], dtype=torch.int64, device=kernel.device)
        return Kernels(kernel, Cut(length, tuple(different)), self), index

    def footprint(self, operator: Operator, cut: Cut) -> Footprint:
        """T of no more positions than the kernel has taps twice over with its cores, or all singular values."""
        taps = largest_state(operator)
        length, r = min(cut.length, 2 * taps + 2), min(cut.largest_rank(), taps)
        values = 8 * r * cut.length + 8 * len(cut.positions) * cut.largest_rank()
        each = values if cut.windowed else max(length * (5 * length + 2400), values)
        # What a kernel of many states holds before it goes to T; one of few states may hold less: `realise` gives up
        # at ℓ / 16 vectors of ℓ / 2 numbers, of which it holds about a dozen copies.
        return Footprint(DOUBLE * each, FALLBACK_BYTES, int(DOUBLE * 0.4 * length**2))


class ConvolutionBlocks(HankelBlocks):
    """The blocks of a batch of convolutions, of a cut that is not windowed."""

    def __init__(self, operator: Convolution, cut: Cut, engine: ConvolutionEngine) -> None:
        self._operator, self._cut, self._shape = operator, cut, operator.batch_shape
        self._kernels, self._place = engine.kernels(operator, cut)
        # Once all singular values are requested, everything else comes from them.
        self._spectrum: Spectrum | None = None

    @ComputedOnce
    def _parts(self) -> list[_Part]:
        return self._kernels.parts()

    @property
    def error_bound(self) -> Tensor:  # pyright: ignore[reportIncompatibleVariableOverride]
        """δ ≥ |σ̂ − σ|, (..., P)."""
        if self._spectrum is not None:
            return self._spectrum.error_bound
        return self._joined(lambda blocks: (blocks.error_bound,))[0]

    @property
    def way(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        """How they were computed, up to now."""
        return " and ".join(self._kernels.ways)

    @torch.no_grad()
    def norms(self) -> Tensor:
        """‖H_i‖_F, (..., P)."""
        norms = self._kernels.norms()[:, self._place]
        return norms.reshape(*self._shape, norms.shape[-1])

    def counts(self, thresholds: Tensor) -> Counts:
        """#{σ > τ} for absolute thresholds (K,)."""
        if self._spectrum is not None:
            return self._spectrum.counts(thresholds)
        return Counts(*self._joined(lambda blocks: _tensors(blocks.counts(thresholds))))

    def relative_counts(self, ratios: Tensor, accuracy: float = 0.0) -> Counts:
        """#{σ > ρ σ_1} for ratios (R,)."""
        if self._spectrum is not None:
            return self._spectrum.relative_counts(ratios, accuracy)
        return Counts(*self._joined(lambda blocks: _tensors(blocks.relative_counts(ratios, accuracy))))

    def entropies(self, accuracy: float) -> tuple[Tensor, Tensor]:
        """Entropy-ESS to a relative accuracy and a bound on its error, both (..., P)."""
        if self._spectrum is not None:
            return self._spectrum.entropies(accuracy)
        entropy, bound = self._joined(lambda blocks: blocks.entropies(accuracy))
        return entropy, bound

    def singular_values(self) -> Tensor:
        """σ̂, (..., P, r), descending, zero-padded; differentiable."""
        self._kernels.ways["decompositions"] = None
        self._spectrum = decomposed(self._operator, self._cut)
        return self._spectrum.values

    def _joined(self, query: Callable[[HankelBlocks], tuple[Tensor, ...]]) -> list[Tensor]:
        """Answers (m, distinct positions, ...) of all parts as tensors (..., P, ...)."""
        order = torch.cat([part.entries for part in self._parts]).argsort()
        columns = zip(*(query(part.blocks) for part in self._parts), strict=True)
        answers = (torch.cat(column)[order][:, self._place] for column in columns)
        return [answer.reshape(*self._shape, *answer.shape[1:]) for answer in answers]


def _tensors(counts: Counts) -> tuple[Tensor, ...]:
    return counts.count, counts.lower, counts.upper


class _Part(NamedTuple):
    """The blocks of some kernels (m,) of the flattened batch at the positions that differ."""

    entries: Tensor
    blocks: HankelBlocks


@dataclass(frozen=True, eq=False)
class Kernels:
    """Kernels k_0 … k_{L−1}, (E, L), with the ascending requested positions up to L / 2.

    Attributes:
        ways: The ways that were taken, filled as they are.
    """

    kernel: Tensor
    cut: Cut
    engine: ConvolutionEngine
    ways: dict[str, None] = field(default_factory=dict[str, None])

    def norms(self) -> Tensor:
        """‖H_i‖_F from the kernel alone, (E, positions)."""
        half = self.cut.length // 2
        largest = self.kernel.abs().amax(-1, keepdim=True)
        scale = torch.where(largest > 0, largest, torch.ones_like(largest))
        squares = (self.kernel[:, 1:] / scale).square()
        # From one position to the next a block gains k_{i+1} … k_{L−i−1}; summed from the middle outwards.
        gained = squares[:, :half] + squares.flip(-1)[:, :half]
        if self.cut.length % 2 == 0:
            gained[:, -1] /= 2
        sums = gained.flip(-1).cumsum(-1).flip(-1).cumsum(-1)
        at = torch.tensor(self.cut.positions, dtype=torch.int64, device=scale.device) - 1
        return sums[:, at].sqrt() * scale

    def parts(self) -> list[_Part]:
        """Each kernel by the first way that serves."""
        left = torch.arange(self.kernel.shape[0], device=self.kernel.device)
        if self._work(self.cut) <= self.engine.quick or not left.numel():
            return [self._exact(left, self.cut)]
        parts = self._realised()
        for part in parts:
            left = left[~torch.isin(left, part.entries)]
        smooth = [is_compressible(Convolution(self.kernel[entry], self.cut.length)) for entry in left]
        entries = left[torch.tensor(smooth, dtype=torch.bool, device=left.device)]
        if entries.numel():
            parts.append(self._streamed(entries))
            left = left[~torch.isin(left, entries)]
        return [*parts, self._exact(left, self.cut)] if left.numel() else parts

    def _realised(self) -> list[_Part]:
        realised = realise(self.kernel[:, 1:], self.engine.width, self.engine.vectors, self.engine.dropped)
        if realised is None:
            return []
        realisation, entries = realised
        chunks = realisation.chunks(self.engine.width)
        number = torch.arange(chunks.error.shape[0], device=entries.device).view(entries.shape[0], -1)
        misfit = chunks.error[number].amax(-1)
        limits = self.engine.close, self.engine.rough
        close, rough = (misfit <= limit * realisation.largest for limit in limits)
        parts: list[_Part] = []
        for fit in (close, rough & ~close):
            these = entries[fit]
            if these.numel():
                self.ways["realisation"] = None
                fitted = chunks.at(number[fit].flatten())
                blocks: HankelBlocks = self._certified(lambda fitted=fitted: fitted, these)
                parts.append(_Part(these, blocks if fit is close else SecondOpinion(blocks, self._again(these))))
        return parts

    def _again(self, entries: Tensor) -> Callable[[int, Tensor], HankelBlocks]:
        def blocks(entry: int, indices: Tensor) -> HankelBlocks:
            positions = tuple(self.cut.positions[int(index)] for index in indices)
            return self._exact(entries[entry : entry + 1], replace(self.cut, positions=positions)).blocks

        return blocks

    def _streamed(self, entries: Tensor) -> _Part:
        self.ways["streaming"] = None
        operator = Convolution(self.kernel[entries], self.cut.length)
        chunks = partial(compressed_chunks, operator, self.engine.width, self.cut.length // 2 + 1)
        return _Part(entries, self._certified(chunks, entries))

    def _certified(self, eliminate: Callable[[], BorderedChunks], entries: Tensor) -> CertifiedBlocks:
        return CertifiedBlocks(eliminate, entries.shape, self.cut, self.cut.length)

    def _exact(self, entries: Tensor, cut: Cut) -> _Part:
        operator = Convolution(self.kernel[entries], cut.length)
        if cut.largest_rank() <= SMALL or not entries.numel():
            self.ways["decompositions"] = None
            return _Part(entries, decomposed(operator, cut))
        tridiagonal = TridiagonalEngine()
        faster = tridiagonal.slower_reason(operator, cut, ("counts", "entropy")) is None
        engine = tridiagonal if faster else ExactEngine()
        self.ways[engine.name] = None
        return _Part(entries, engine.blocks(operator, cut))

    @staticmethod
    def _work(cut: Cut) -> int:
        return sum((cut.length - i) * i**2 for i in cut.positions)
