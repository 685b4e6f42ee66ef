"""Convolutions: half the positions of a shorter sequence tell all, by the fastest of four ways for each kernel."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import cast

import torch
from torch import Tensor

from statesize.errors import EngineError
from statesize.operators import Convolution, Operator
from statesize.spectra.blocks import Counts, HankelBlocks
from statesize.spectra.certified import CertifiedBlocks
from statesize.spectra.circulant import circulant_norm
from statesize.spectra.cut import Cut
from statesize.spectra.distinct_blocks import distinct_blocks
from statesize.spectra.position_tree import plant_tree
from statesize.spectra.realisation import realise
from statesize.spectra.relative_bands import TreeBlocks
from statesize.spectra.streaming import compressed_chunks, is_compressible

# Work of decompositions (rows · columns²) that costs less than anything else.
_QUICK = 2e8
# Positions a chunk.
_WIDTH = 32
# A realisation must be within this of σ_1; it is usually much closer.
_MISFIT = 2e-9


@dataclass(frozen=True, eq=False)
class Part:
    """What one way makes of some of the kernels.

    Attributes:
        way: Its name.
        entries: Which kernels of the flattened batch, (m,) int64.
        blocks: Their blocks at the positions that differ, batch shape (m,).
    """

    way: str
    entries: Tensor
    blocks: HankelBlocks


class ConvolutionBlocks(HankelBlocks):
    """The blocks of a batch of convolutions, put together from those that differ.

    Args:
        parts: Each kernel in one of them.
        batch_shape: Batch shape of the operator.
        place: Which of the blocks that differ stands at each position, (P,) int64.
    """

    def __init__(self, parts: list[Part], batch_shape: torch.Size, place: Tensor) -> None:
        self._parts = parts
        self._shape = batch_shape
        self._place = place
        self.way = " and ".join(part.way for part in parts)
        self._order = torch.cat([part.entries for part in parts]).argsort()
        self.error_bound = self._joined(lambda blocks: (blocks.error_bound,))[0]

    def norms(self) -> Tensor:
        """‖H_i‖_F, (..., P)."""
        return self._joined(lambda blocks: (blocks.norms(),))[0]

    def counts(self, thresholds: Tensor) -> Counts:
        """#{σ > τ} for absolute thresholds (K,)."""
        return Counts(*self._joined(lambda blocks: _tensors(blocks.counts(thresholds))))

    def relative_counts(self, ratios: Tensor, accuracy: float = 0.0) -> Counts:
        """#{σ > ρ σ_1} for ratios (R,)."""
        return Counts(*self._joined(lambda blocks: _tensors(blocks.relative_counts(ratios, accuracy))))

    def entropies(self, accuracy: float) -> tuple[Tensor, Tensor]:
        """Entropy-ESS to a relative accuracy and a bound on its error, both (..., P)."""
        entropy, bound = self._joined(lambda blocks: blocks.entropies(accuracy))
        return entropy, bound

    def singular_values(self) -> Tensor:
        """Not given by this engine.

        Raises:
            EngineError: Always.
        """
        raise EngineError("convolution gives counts and entropies; for all singular values use distinct_blocks")

    def _joined(self, ask: Callable[[HankelBlocks], tuple[Tensor, ...]]) -> list[Tensor]:
        """Answers (m, distinct positions, ...) of all parts as tensors (..., P, ...)."""
        columns = zip(*(ask(part.blocks) for part in self._parts), strict=True)
        found = (torch.cat(column)[self._order][:, self._place] for column in columns)
        return [answer.reshape(*self._shape, *answer.shape[1:]) for answer in found]


def _tensors(counts: Counts) -> tuple[Tensor, ...]:
    return counts.count, counts.lower, counts.upper


@torch.no_grad()
def convolution_blocks(operator: Operator, cut: Cut) -> ConvolutionBlocks:
    """Counts and entropies of a convolution.

    H_i is the Hankel matrix k_{1+r+c} of L − i rows and i columns (see distinct_blocks.py), so H_{L−i} = H_iᵀ; and if
    k_m is the last tap that is not 0, at most the first m rows and columns are not 0. So the positions up to L' / 2 of
    a sequence of L' = min(L, 2 m) tell all, and a short kernel costs the same at any length. These are found

    - for short L' or few positions by a decomposition each;
    - for kernels that a few states make from a realisation, if what it misses is negligible;
    - for other kernels of low numerical rank by compressing the past;
    - else by the position tree, or again by decompositions where positions are few.

    Args:
        operator: A convolution.
        cut: Which blocks, not windowed.

    Returns:
        The blocks; without gradients.
    """
    convolution = cast("Convolution", operator)
    shape = convolution.batch_shape
    kernel = convolution.kernel.reshape(shape.numel(), convolution.kernel.shape[-1])[:, : cut.length]
    taps = (kernel != 0).any(0).nonzero()
    last = max(1, int(taps.max())) if taps.numel() else 1
    length = min(cut.length, 2 * last)
    nearest = [min(i, cut.length - i, length // 2) for i in cut.positions]
    different = {position: place for place, position in enumerate(sorted(set(nearest)))}
    kernel = torch.nn.functional.pad(kernel, (0, max(0, length - kernel.shape[-1])))[:, :length]
    place = torch.tensor([different[i] for i in nearest], dtype=torch.int64, device=kernel.device)
    return ConvolutionBlocks(_parts(kernel, Cut(length, tuple(different))), shape, place)


def _parts(kernel: Tensor, cut: Cut) -> list[Part]:
    left = torch.arange(kernel.shape[0], device=kernel.device)
    work = sum((cut.length - i) * i**2 for i in cut.positions)
    if work <= _QUICK or not left.numel():
        return [Part("distinct_blocks", left, distinct_blocks(Convolution(kernel, cut.length), cut))]
    parts: list[Part] = []
    fitted = _realised(kernel, cut)
    if fitted is not None:
        parts.append(fitted)
        left = left[~torch.isin(left, fitted.entries)]
    smooth = [is_compressible(Convolution(kernel[entry], cut.length)) for entry in left]
    entries = left[torch.tensor(smooth, dtype=torch.bool, device=kernel.device)]
    if entries.numel():
        chunks = compressed_chunks(Convolution(kernel[entries], cut.length), _WIDTH, cut.length // 2 + 1)
        parts.append(Part("streaming", entries, CertifiedBlocks(chunks, entries.shape, cut, cut.length)))
        left = left[~torch.isin(left, entries)]
    if left.numel() and work <= cut.length**3:
        parts.append(Part("distinct_blocks", left, distinct_blocks(Convolution(kernel[left], cut.length), cut)))
    elif left.numel():
        later = Cut(cut.length, tuple(cut.length - i for i in cut.positions))
        tree = plant_tree(Convolution(kernel[left], cut.length).dense())
        # The norm that the tree would take grows with the rank, and with it how much of an entropy is in doubt.
        tree = replace(tree, known_bound=circulant_norm(kernel[left, 1:]))
        parts.append(Part("position_tree", left, TreeBlocks(tree, left.shape, later)))
    return parts


def _realised(kernel: Tensor, cut: Cut) -> Part | None:
    found = realise(kernel[:, 1:], _WIDTH)
    if found is None:
        return None
    realisation, entries = found
    chunks = realisation.chunks(_WIDTH)
    number = torch.arange(chunks.error.shape[0], device=kernel.device).view(entries.shape[0], -1)
    good = chunks.error[number].amax(-1) <= _MISFIT * realisation.largest
    entries, index = entries[good], number[good].flatten()
    if not entries.numel():
        return None
    return Part("realisation", entries, CertifiedBlocks(chunks.at(index), entries.shape, cut, cut.length))
