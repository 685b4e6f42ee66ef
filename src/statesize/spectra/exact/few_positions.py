"""All singular values of a recurrence at few positions, with square-root factors carried from chunk to chunk.

σ(H_i) = σ(S_i L_i) as for all positions (square_root.py), but L and S take a chunk of 32 to 128 positions by one QR,
and are stored only where they are requested. The recurrence is read and converted to float64 a stretch of chunks at a
time, so that the memory does not grow with L.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import torch
from torch import Tensor

from statesize.operators import Recurrence
from statesize.operators.transition import DeltaTransition, FullTransition, RankOneTransition
from statesize.spectra.border_maps import WIDEST, BorderMaps, chosen_borders, chunks_between, maps_of_chunks
from statesize.spectra.cut import Cut
from statesize.spectra.factorisation import after_chunk, before_chunk, frobenius_norm, singular_values
from statesize.spectra.spectrum import (
    Sizes,
    Spectrum,
    carried_errors,
    chunk_sizes,
    denormal_error,
    sizes_before_erasing,
    sizes_by_gain,
)

# Numbers of a stretch in one of the tensors that its chunks are made of.
_NUMBERS = 2**18
# Positions for each requested one, from which on chunks take less time than steps.
_SPARSE = 32


def are_few(cut: Cut) -> bool:
    """Whether positions are so few that most chunks lie between two of them."""
    return not cut.windowed and _SPARSE * len(cut.positions) <= cut.length


@torch.no_grad()
def few_spectra(recurrence: Recurrence, cut: Cut) -> Spectrum:
    """σ(H_i) of a recurrence in any dtype, r = min(n, the largest min(rows, columns)); without gradients."""
    carried = _Carried(recurrence, cut)
    L, L_norm, sizes = carried.past()
    products, S_norm = carried.future(L)
    states = products.shape[-1]
    epsilon = 2 * (states + carried.width) * torch.finfo(S_norm.dtype).eps
    past, future, every = carried_errors(L_norm, S_norm, sizes, epsilon)
    # At the border before chunk k, the first border left out.
    size = S_norm[..., :-1] * L_norm[..., 1:]
    local = S_norm[..., :-1] * past[..., :-1] + L_norm[..., 1:] * future[..., 1:]
    bound = torch.minimum(every, torch.nan_to_num(local, nan=torch.inf)) + epsilon * size + denormal_error(size)
    r, limit = min(states, cut.largest_rank()), cut.limits(recurrence.device)
    values = singular_values(products)[..., :r]
    # A block of fewer rows or columns than states has no further singular values: the others are round-off.
    values = values.masked_fill(torch.arange(r, device=values.device) >= limit[:, None], 0)
    return Spectrum(values, bound[..., carried.indices - 1], limit)


class _Carried:
    """Factors of a recurrence at borders that hold the positions of a cut."""

    def __init__(self, recurrence: Recurrence, cut: Cut) -> None:
        self._recurrence = recurrence
        self._borders = chosen_borders(recurrence, cut.positions)
        index_of = {border: k for k, border in enumerate(self._borders)}
        self._positions = [index_of[i] for i in cut.positions]
        self.indices = torch.tensor(self._positions, dtype=torch.int64, device=recurrence.device)
        self.width = max(last - first for first, last in itertools.pairwise(self._borders))
        self._states = _real(recurrence, 0, 1).B.shape[-1]
        self._at_once = max(1, _NUMBERS // _chunk_numbers(recurrence, self.width))

    def past(self) -> tuple[dict[int, Tensor], Tensor, Sizes]:
        """L at the requested borders, ‖L‖_F before each of the c chunks, (..., c), and the chunks' sizes."""
        factors, wanted, norms = dict[int, Tensor](), set(self._positions), self._zeros()
        sizes, factor = Sizes(*(self._zeros() for _ in Sizes._fields)), self._zeros(self._states, self._states)
        for first, maps, own in self._stretches(backwards=False):
            for every, part in zip(sizes, own, strict=True):
                every[..., first : first + part.shape[-1]] = part
            chunks = zip(maps.transition.unbind(-3), maps.reachability.unbind(-3), strict=True)
            for k, (transition, columns) in enumerate(chunks, first):
                norms[..., k] = frobenius_norm(factor)
                if k in wanted:
                    factors[k] = factor
                factor = after_chunk(factor.to(maps.transition), transition, columns)
        return factors, norms, sizes

    def future(self, L: dict[int, Tensor]) -> tuple[Tensor, Tensor]:
        """S_i L_i at the requested positions, (..., P, n, n), and ‖S‖_F after each of the c chunks, (..., c)."""
        factors, norms, factor = dict[int, Tensor](), self._zeros(), self._zeros(self._states, self._states)
        for first, maps, _ in self._stretches(backwards=True):
            chunks = list(zip(maps.transition.unbind(-3), maps.observability.unbind(-3), strict=True))
            for k, (transition, rows) in reversed(list(enumerate(chunks, first))):
                norms[..., k] = frobenius_norm(factor)
                factor = before_chunk(factor.to(maps.transition), transition, rows)
                if k in L:
                    factors[k] = factor @ L[k]
        return torch.stack([factors[k] for k in self._positions], -3), norms

    def _zeros(self, *shape: int) -> Tensor:
        """Zeros for each of the c chunks, (..., c), or of another shape."""
        # Written in place: small tensors that stay between large ones that go would make the heap grow with L.
        original = self._recurrence
        size = (*original.batch_shape, *(shape or (len(self._borders) - 1,)))
        return torch.zeros(size, dtype=torch.float64, device=original.device)

    def _stretches(self, backwards: bool) -> Iterator[tuple[int, BorderMaps, Sizes]]:
        """The first chunk of each stretch, what its chunks do, in float64, and their sizes."""
        firsts = range(0, len(self._borders) - 1, self._at_once)
        for first in reversed(firsts) if backwards else firsts:
            borders = self._borders[first : first + self._at_once + 1]
            transition, B, C = chunks_between(
                _real(self._recurrence, borders[0], borders[-1]), [border - borders[0] for border in borders]
            )
            maps = maps_of_chunks(transition, B, C)
            sizes = chunk_sizes(*maps)
            if isinstance(transition, DeltaTransition):
                sizes = sizes.or_more(sizes_before_erasing(transition.key, transition.decay, B, C))
            if isinstance(transition, RankOneTransition):
                sizes = sizes.or_more(sizes_by_gain(transition.gain(), B, C))
            yield first, maps, sizes


def _real(recurrence: Recurrence, first: int, last: int) -> Recurrence:
    """Some steps in float64, with a real T."""
    return recurrence.between(first, last).to(dtype=torch.float64).with_real_output()


def stretch_numbers(recurrence: Recurrence) -> int:
    """Numbers of a stretch in one of the tensors that its chunks are made of, for each batch entry."""
    width = WIDEST[type(recurrence.transition)]
    each = _chunk_numbers(recurrence, width)
    return min(max(each, _NUMBERS), -(-recurrence.length // width) * each)


def _chunk_numbers(recurrence: Recurrence, width: int) -> int:
    states = recurrence.B.shape[-1]
    return states * max(states, width * (states if isinstance(recurrence.transition, FullTransition) else 1))
