"""All singular values of a recurrence from square-root factors of its two Gramians, carried from chunk to chunk.

H_i is the observability matrix of its future times the reachability matrix of its past. With triangular factors S and L
of the two, σ(H_i) = σ(S_i L_i); nothing is squared. L and S take a chunk of up to 128 positions by one QR, and are
stored only where they are requested. The recurrence is read and converted to float64 a stretch of chunks at a time, so
that the memory does not grow with L (docs/appendix/engine-mathematics.md, "Square roots of the Gramians").
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from statesize.operators import Recurrence
from statesize.operators.transition import DeltaTransition, DiagonalTransition, FullTransition, RankOneTransition
from statesize.spectra.border_maps import WIDEST, BorderMaps, chosen_borders, chunks_between, maps_of_chunks
from statesize.spectra.cut import Cut
from statesize.spectra.factorisation import after_chunk, before_chunk, frobenius_norm, singular_values
from statesize.spectra.spectrum import Spectrum, denormal_error

# Numbers of a stretch in one of the tensors that its chunks are made of.
_NUMBERS = 2**18


@torch.no_grad()
def recurrence_spectrum(recurrence: Recurrence, cut: Cut) -> Spectrum:
    """σ(H_i) of a recurrence in any dtype, r = min(n, the largest min(rows, columns)); without gradients."""
    if cut.windowed or not cut.positions:
        return _windowed(recurrence, cut)
    carried = _Chunks(recurrence, cut)
    L, L_norm, sizes = carried.past()
    products, S_norm = carried.future(L)
    states = products.shape[-1]
    epsilon = 2 * (states + carried.width) * torch.finfo(S_norm.dtype).eps
    past, future, every = _carried_errors(L_norm, S_norm, sizes, epsilon)
    # At the border before chunk k, the first border left out.
    size = S_norm[..., :-1] * L_norm[..., 1:]
    local = S_norm[..., :-1] * past[..., :-1] + L_norm[..., 1:] * future[..., 1:]
    bound = torch.minimum(every, torch.nan_to_num(local, nan=torch.inf)) + epsilon * size + denormal_error(size)
    r, limit = min(states, cut.largest_rank), cut.limits
    values = singular_values(products)[..., :r]
    # A block of fewer rows or columns than states has no further singular values: the others are round-off.
    values = values.masked_fill(torch.arange(r, device=values.device) >= limit[:, None], 0)
    return Spectrum(values, bound[..., carried.indices - 1], limit)


def _windowed(recurrence: Recurrence, cut: Cut) -> Spectrum:
    """Each block as that of the steps in its windows."""
    r, shape = cut.largest_rank, recurrence.batch_shape
    none = torch.zeros((*shape, 0, r), dtype=torch.float64, device=recurrence.device)
    values, bounds = [none], [none.sum(-1)]
    for i in cut.positions:
        rows, columns = cut.reach(i)
        part = Cut(rows.stop - columns.start, (i - columns.start,))
        spectrum = recurrence_spectrum(recurrence.between(columns.start, rows.stop), part)
        values.append(torch.nn.functional.pad(spectrum.values, (0, r - spectrum.values.shape[-1])))
        bounds.append(spectrum.error_bound)
    return Spectrum(torch.cat(values, -2), torch.cat(bounds, -1), cut.limits)


def _carried(gain: Tensor, steps: Tensor) -> Tensor:
    """e_0 = step_0, e_k = gain_k e_{k−1} + step_k, (..., K): what steps lose, carried on by gains ≥ 0."""
    carried = [steps[..., 0]]
    for k in range(1, steps.shape[-1]):
        carried.append(gain[..., k] * carried[-1] + steps[..., k])
    return torch.stack(carried, -1)


class _Sizes(NamedTuple):
    """Norms of what a chunk is made of, (..., c) each."""

    gain: Tensor  # ‖Φ‖
    shown: Tensor  # ‖C_t Φ(t, i0)‖_F
    written: Tensor  # ‖Φ(i1, s) B_s‖_F

    def or_more(self, other: _Sizes) -> _Sizes:
        """The larger ones."""
        return _Sizes(*map(torch.maximum, self, other))


class _CarriedErrors(NamedTuple):
    """What round-off may have added to factors, in the Frobenius norm, (..., c) each."""

    past: Tensor  # to L after each chunk
    future: Tensor  # to S before each chunk
    every: Tensor  # to any singular value, all chunks together, (..., 1)


def _chunk_sizes(observability: Tensor, reachability: Tensor, transition: Tensor) -> _Sizes:
    """Sizes of chunks as they are."""
    gain = (transition.abs().sum(-1).amax(-1) * transition.abs().sum(-2).amax(-1)).sqrt()
    return _Sizes(gain, frobenius_norm(observability), frobenius_norm(reachability))


def _sizes_before_erasing(key: Tensor, decay: Tensor, B: Tensor, C: Tensor) -> _Sizes:
    """Sizes of a delta rule before it takes away what was stored: what is left is rounded like what was there."""
    # From the tensors that `delta_chunks` takes, (..., c, b, n) each.
    return _sizes_by_gain((1 - (B * key).sum(-1)).abs().clamp(min=1) * decay.abs().amax(-1), B, C)


def _sizes_by_gain(gain: Tensor, B: Tensor, C: Tensor) -> _Sizes:
    """Sizes of sums that cancel, from a bound on ‖A_t‖ and on what it adds, (..., c, b)."""
    written, shown = (part.abs().square().sum(-1) for part in (B, C))
    before, after = gain.cumprod(-1).square(), gain.flip(-1).cumprod(-1).flip(-1).square()
    after = torch.nn.functional.pad(after[..., 1:], (0, 1), value=1.0)
    return _Sizes(gain.prod(-1), (shown * before).sum(-1).sqrt(), (written * after).sum(-1).sqrt())


def _carried_errors(L_norm: Tensor, S_norm: Tensor, sizes: _Sizes, epsilon: float) -> _CarriedErrors:
    """From ‖L‖_F before and ‖S‖_F after each chunk, (..., c) each."""
    past_step = epsilon * (sizes.gain * L_norm + sizes.written)
    future_step = epsilon * (sizes.shown + S_norm * sizes.gain)
    return _CarriedErrors(
        _carried(sizes.gain, past_step),
        _carried(sizes.gain.flip(-1), future_step.flip(-1)).flip(-1),
        (past_step * S_norm + future_step * L_norm).sum(-1, keepdim=True),
    )


class _Chunks:
    """Factors of a recurrence at borders that hold the positions of a cut."""

    def __init__(self, recurrence: Recurrence, cut: Cut) -> None:
        self._recurrence = recurrence
        self._borders = chosen_borders(recurrence, cut.positions, _widest(recurrence))
        index_of = {border: k for k, border in enumerate(self._borders)}
        self._positions = [index_of[i] for i in cut.positions]
        self.indices = torch.tensor(self._positions, dtype=torch.int64, device=recurrence.device)
        self.width = max(last - first for first, last in itertools.pairwise(self._borders))
        self._states = _real(recurrence, 0, 1).B.shape[-1]
        self._at_once = max(1, _NUMBERS // _chunk_numbers(recurrence, self.width))

    def past(self) -> tuple[dict[int, Tensor], Tensor, _Sizes]:
        """L at the requested borders, ‖L‖_F before each of the c chunks, (..., c), and the chunks' sizes."""
        factors, wanted, norms = dict[int, Tensor](), set(self._positions), self._zeros()
        sizes, factor = _Sizes(*(self._zeros() for _ in _Sizes._fields)), self._zeros(self._states, self._states)
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

    def _stretches(self, backwards: bool) -> Iterator[tuple[int, BorderMaps, _Sizes]]:
        """The first chunk of each stretch, what its chunks do, in float64, and their sizes."""
        firsts = range(0, len(self._borders) - 1, self._at_once)
        for first in reversed(firsts) if backwards else firsts:
            borders = self._borders[first : first + self._at_once + 1]
            transition, B, C = chunks_between(
                _real(self._recurrence, borders[0], borders[-1]), [border - borders[0] for border in borders]
            )
            maps = maps_of_chunks(transition, B, C)
            sizes = _chunk_sizes(*maps)
            if isinstance(transition, DeltaTransition):
                sizes = sizes.or_more(_sizes_before_erasing(transition.key, transition.decay, B, C))
            if isinstance(transition, FullTransition):
                sizes = sizes.or_more(_sizes_by_gain(_spectral_bound(transition.full), B, C))
            if isinstance(transition, RankOneTransition):
                sizes = sizes.or_more(_sizes_by_gain(transition.gain(), B, C))
            yield first, maps, sizes


def _widest(recurrence: Recurrence) -> int:
    """Most positions of a chunk: so few that products of transitions do not grow by more than e⁷ before they cancel."""
    widest = WIDEST[type(recurrence.transition)]  # pyright: ignore[reportArgumentType]
    if not isinstance(recurrence.transition, FullTransition) or not recurrence.B.numel():
        return widest
    growth = math.log(max(1.0, float(_spectral_bound(recurrence.transition.full).max())))
    return max(1, min(widest, int(7 / growth))) if growth > 0 else widest


def _spectral_bound(matrix: Tensor) -> Tensor:
    """At least ‖X‖₂, at most n^(1/16) times it, from ‖(XᴴX)⁴‖_F^(1/8), (...), of X (..., n, n)."""
    # Single precision is enough: 1.01⁸ = 1.08, and of a norm of 1 the two products lose some n · 1e-7.
    scale = frobenius_norm(matrix)
    safe = torch.where(scale > 0, scale, torch.ones_like(scale))
    single = (matrix / safe[..., None, None]).to(torch.complex64 if matrix.is_complex() else torch.float32)
    square = single.mH @ single
    fourth = square @ square
    return 1.01 * scale * frobenius_norm(fourth @ fourth).to(scale.dtype) ** 0.125


def _real(recurrence: Recurrence, first: int, last: int) -> Recurrence:
    """Some steps in float64, with a real T."""
    return recurrence.between(first, last).to(dtype=torch.float64).with_real_output()


def stretch_numbers(recurrence: Recurrence) -> int:
    """Numbers of a stretch in one of the tensors that its chunks are made of, for each batch entry."""
    width = WIDEST[type(recurrence.transition)]  # pyright: ignore[reportArgumentType]
    each = _chunk_numbers(recurrence, width)
    return min(max(each, _NUMBERS), -(-recurrence.length // width) * each)


def _chunk_numbers(recurrence: Recurrence, width: int) -> int:
    states = recurrence.B.shape[-1]
    return states * max(states, width * (states if isinstance(recurrence.transition, FullTransition) else 1))


def factor_seconds(recurrence: Recurrence, cut: Cut) -> float:
    """About how long the singular values of one batch entry take on one core; measured."""
    n, widest = recurrence.B.shape[-1], WIDEST[type(recurrence.transition)]  # pyright: ignore[reportArgumentType]
    steps, chunks, each = cut.length, len(cut.positions) + cut.length / widest, 0.0
    if cut.windowed:
        steps = sum(sum(side.stop - side.start for side in cut.reach(i)) for i in cut.positions)
        chunks, each = steps / widest, 1.5e-3
    stepped = isinstance(recurrence.transition, DiagonalTransition | DeltaTransition)
    step = 0.0 if stepped else 3e-5 + 5e-10 * n**2 * (n + widest)
    of_position = each + 2e-5 + 5e-10 * n**3
    factors = 2.5e-4 + 1.2e-9 * n**2 * (n + steps / max(1, chunks))
    return steps * step + chunks * factors + len(cut.positions) * of_position
