"""Square-root factors of a window that slides over a recurrence, and all singular values of its blocks."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from statesize.operators import Recurrence
from statesize.operators.transition import DiagonalTransition, Transition
from statesize.spectra.cut import Cut
from statesize.spectra.factorisation import frobenius_norm, singular_values, triangular_factor
from statesize.spectra.spectrum import Spectrum, denormal_error

# Without a window, inputs that are added at once: fewer make more steps, more make more doublings.
_SMALLEST_BLOCK = 32
# Numbers that are put together at once; these fit a processor's cache.
_NUMBERS_AT_ONCE = 2**17


@dataclass(frozen=True, eq=False)
class Factors:
    """F_t with F_t F_tᴴ the Gramian of some steps, at every t; its columns are known up to a rotation."""

    factor: Tensor  # F, (..., L, n, k), k at most n
    norm: Tensor  # ‖F_t‖_F, (..., L)
    error: Tensor  # what round-off may have added to F_t, in the Frobenius norm, (..., L)

    def part(self, first: int, last: int) -> Factors:
        """Those for first ≤ t < last."""
        return Factors(self.factor[..., first:last, :, :], self.norm[..., first:last], self.error[..., first:last])

    def at(self, indices: Tensor) -> Factors:
        """Those at some t, (P,)."""
        return Factors(self.factor[..., indices, :, :], self.norm[..., indices], self.error[..., indices])


@dataclass(frozen=True, eq=False)
class Products:
    """Φ_t = A_{t+ℓ−1} … A_{t+1} A_t at every t that has so many after it."""

    matrix: Tensor  # Φ, (..., L − ℓ + 1, n, n); a diagonal one as a column, (..., n, 1) or (..., 1, 1)
    diagonal: bool
    gain: Tensor  # at least ‖Φ_t‖₂, (..., L − ℓ + 1)
    error: Tensor  # what round-off may have added to Φ_t, in the same norm, (..., L − ℓ + 1)

    @classmethod
    def of(cls, transition: Transition) -> Products:
        """The transitions themselves, ℓ = 1."""
        diagonal, matrix, gain = isinstance(transition, DiagonalTransition), transition.matrix(), transition.gain()
        return cls(matrix[..., None] if diagonal else matrix, diagonal, gain, torch.zeros_like(gain))._bounded()

    def times(self, factor: Tensor) -> Tensor:
        """Φ_t X_t for X (..., n, k)."""
        return self.matrix * factor if self.diagonal else self.matrix @ factor

    @property
    def round_off(self) -> float:
        """The error of one multiplication by Φ_t, relative to the norms."""
        return (4 if self.diagonal else 2 * (self.matrix.shape[-1] + 1)) * torch.finfo(self.matrix.dtype).eps

    def adjoint(self) -> Products:
        """Φ_tᴴ."""
        return Products(self.matrix.conj() if self.diagonal else self.matrix.mH, self.diagonal, self.gain, self.error)

    def part(self, first: int, last: int) -> Products:
        """Those for first ≤ t < last."""
        gain, error = self.gain[..., first:last], self.error[..., first:last]
        return Products(self.matrix[..., first:last, :, :], self.diagonal, gain, error)

    def doubled(self, steps: int) -> Products:
        """The products of 2ℓ steps from these of ℓ."""
        count = self.gain.shape[-1]
        before, after = self.part(0, count - steps), self.part(steps, count)
        gain = after.gain * before.gain
        error = after.gain * before.error + after.error * before.gain + self.round_off * gain
        return Products(after.times(before.matrix), self.diagonal, gain, error)._bounded()

    def _bounded(self) -> Products:
        """With a smaller gain where the norm of the product itself gives one."""
        if self.diagonal:
            norm = self.matrix.abs().amax((-2, -1))
        elif bool((self.gain > 1).any()):
            norm = spectral_bound(self.matrix)
        else:
            return self
        return Products(self.matrix, self.diagonal, torch.minimum(self.gain, norm + self.error), self.error)


def window_factors(
    transition: Transition, B: Tensor, C: Tensor, past: int | None, future: int | None
) -> tuple[Factors, Factors]:
    """Square-root factors of both Gramians of every block T[i:i+h, i−w:i]: L at i − 1 and S at i; None is no window."""
    products = {1: Products.of(transition)}
    adjoint, column, row = products[1].adjoint(), B[..., None], C.conj()[..., None]
    carried, lost = adjoint.times(row), adjoint.round_off * adjoint.gain * frobenius_norm(row)
    norm = frobenius_norm(column)
    reachability = Factors(column, norm, torch.zeros_like(norm))
    observability = Factors(carried, frobenius_norm(carried), lost)
    return _Side(products, past=True).over(past, reachability), _Side(products, past=False).over(future, observability)


@dataclass(frozen=True, eq=False)
class _Side:
    """The past or the future; both find the transitions over 1, 2, 4, … steps in `products` and add to it."""

    products: dict[int, Products]
    past: bool

    def over(self, window: int | None, single: Factors) -> Factors:
        """The factors over a window, from those over one step."""
        length, states = single.factor.shape[-3:-1]
        # As many steps as a power of two, whose transitions are known, or all there are.
        block = min(length, 1 << (max(states, _SMALLEST_BLOCK) - 1).bit_length())
        span = block if window is None else window
        factors = power = single
        for steps in (1 << digit for digit in range(span.bit_length())):
            if span & steps:
                factors = power if span % steps == 0 else self._joined(steps, factors, power)
            if 2 * steps <= span:
                power = self._joined(steps, power, power)
        return self._over_all(block, factors) if window is None else factors

    def _over_all(self, steps: int, window: Factors) -> Factors:
        """Over everything up to t, from windows of `steps`: as many positions at a time."""
        length = window.factor.shape[-3]
        blocks: list[Factors] = []
        for near in range(0, length, steps):
            far = min(near + steps, length)
            first, last = (near, far) if self.past else (length - far, length - near)
            here = window.part(first, last)
            if blocks:
                size = far - near
                older = blocks[-1].part(0, size) if self.past else blocks[-1].part(steps - size, steps)
                here = _added(self._transitions(steps, first, last), older, here)
            blocks.append(here)
        return _concatenated(blocks if self.past else blocks[::-1])

    def _joined(self, steps: int, beyond: Factors, near: Factors) -> Factors:
        """Over `steps` nearest and what lies beyond them, some positions at a time."""
        *batch, length, states, columns = near.factor.shape
        size = max(1, _NUMBERS_AT_ONCE // max(1, math.prod(batch) * states * (columns + beyond.factor.shape[-1])))
        parts: list[Factors] = [] if not self.past else [near.part(0, steps)]
        start, stop = (steps, length) if self.past else (0, length - steps)
        for first in range(start, stop, size):
            last = min(first + size, stop)
            older = beyond.part(first - steps, last - steps) if self.past else beyond.part(first + steps, last + steps)
            parts.append(_added(self._transitions(steps, first, last), older, near.part(first, last)))
        if not self.past:
            parts.append(near.part(stop, length))
        return _concatenated(parts)

    def _transitions(self, steps: int, first: int, last: int) -> Products:
        """What carries from beyond `steps` to first ≤ t < last."""
        if steps not in self.products:
            self.products[steps] = self.products[steps // 2].doubled(steps // 2)
        products = self.products[steps]
        return products.part(first - steps + 1, last - steps + 1) if self.past else products.part(first, last).adjoint()


def _added(products: Products, beyond: Factors, near: Factors) -> Factors:
    """Factors of both, at equal positions: what lies beyond is carried here by the products."""
    lost = products.error + products.round_off * products.gain
    error = torch.hypot(products.gain * beyond.error + lost * beyond.norm, near.error)
    factor = torch.cat([products.times(beyond.factor), near.factor], -1)
    states = factor.shape[-2]
    if factor.shape[-1] > states:
        factor = triangular_factor(factor.mH).mH
    norm = frobenius_norm(factor)
    round_off = 2 * (states + 1) * torch.finfo(factor.dtype).eps * norm + denormal_error(norm)
    return Factors(factor, norm, error + round_off)


def _concatenated(parts: list[Factors]) -> Factors:
    width = max(part.factor.shape[-1] for part in parts)
    wide = [torch.nn.functional.pad(part.factor, (0, width - part.factor.shape[-1])) for part in parts]
    norms, errors = [part.norm for part in parts], [part.error for part in parts]
    return Factors(torch.cat(wide, -3), torch.cat(norms, -1), torch.cat(errors, -1))


def spectral_bound(matrix: Tensor) -> Tensor:
    """At least ‖X‖₂, at most n^(1/16) times it, from ‖(XᴴX)⁴‖_F^(1/8), (...), of X (..., n, n)."""
    # Single precision is enough: 1.01⁸ = 1.08, and of a norm of 1 the two products lose some n · 1e-7.
    scale = frobenius_norm(matrix)
    safe = torch.where(scale > 0, scale, torch.ones_like(scale))
    single = (matrix / safe[..., None, None]).to(torch.complex64 if matrix.is_complex() else torch.float32)
    gram = single.mH @ single
    square = gram @ gram
    return 1.01 * scale * frobenius_norm(square @ square).to(scale.dtype) ** 0.125


@torch.no_grad()
def windowed_spectrum(recurrence: Recurrence, cut: Cut, numbers_held: int) -> Spectrum:
    """σ(T[i:i+h, i−w:i]) = σ(S_iᴴ L_i), r = min(n, the largest min(rows, columns)); without gradients."""
    shape, length, device = recurrence.batch_shape, recurrence.length, recurrence.device
    # Its singular values are as many as its real output has modes.
    states = recurrence.between(0, 1).with_real_output().B.shape[-1]
    r, limit = min(states, cut.largest_rank()), cut.limits(device)
    epsilon = 2 * (states + 1) * torch.finfo(torch.float64).eps
    none = torch.zeros((*shape, 0, r), dtype=torch.float64, device=device)
    values, bounds = [none], [none.sum(-1)]
    order = sorted(range(len(cut.positions)), key=cut.positions.__getitem__)
    for positions in _stretches([cut.positions[k] for k in order], cut, stretch_length(cut, states, numbers_held)):
        start = 0 if cut.past is None else positions[0] - cut.past
        stop = length if cut.future is None else positions[-1] + cut.future
        real = recurrence.between(start, stop).to(dtype=torch.float64).with_real_output()
        B, C = (part.expand(*shape, stop - start, states) for part in (real.B, real.C))
        reachability, observability = window_factors(real.transition, B, C, cut.past, cut.future)
        at = torch.tensor(positions, device=device) - start
        L, S = reachability.at(at - 1), observability.at(at)
        sigma = singular_values(S.factor.mH @ L.factor)[..., :r]
        values.append(torch.nn.functional.pad(sigma, (0, r - sigma.shape[-1])))
        size = S.norm * L.norm
        bounds.append(S.norm * L.error + (L.norm + L.error) * S.error + epsilon * size + denormal_error(size))
    order_of = torch.tensor(order, dtype=torch.int64, device=device).argsort()
    sigma = torch.cat(values, -2)[..., order_of, :]
    # A block of fewer rows or columns than states has no further singular values: the others are round-off.
    sigma = sigma.masked_fill(torch.arange(r, device=device) >= limit[:, None], 0)
    return Spectrum(sigma, torch.cat(bounds, -1)[..., order_of], limit)


def stretch_length(cut: Cut, states: int, numbers_held: int) -> int:
    """How many positions are factorised at once: all of them unless both sides are cut."""
    if cut.past is None or cut.future is None:
        return cut.length
    return min(cut.length, max(3 * (cut.past + cut.future), numbers_held // states**2))


def _stretches(positions: list[int], cut: Cut, longest: int) -> list[list[int]]:
    """Ascending positions, together where their windows share most of what they span."""
    if cut.past is None or cut.future is None:
        return [positions] if positions else []
    span = cut.past + cut.future
    groups: list[list[int]] = []
    for position in positions:
        if not groups or position - groups[-1][-1] > span or position - groups[-1][0] + span > longest:
            groups.append([])
        groups[-1].append(position)
    return groups
