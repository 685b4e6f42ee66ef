"""Blocks of a convolution: decomposed, or of an eigensystem realisation of kernels that a few states make.

The range of H_{L/2} comes from its products with random vectors (Halko, Martinsson and Tropp, 2011), which are
convolutions. Its basis U is one of the columns of C Aᵗ, so A is what shifts the rows of U by one (Ho and Kalman,
1966; Kung, 1978; Juang and Pappa, 1985). Powers of A may grow in directions that U hardly has; so an orthonormal basis
of C Aᵗ over the whole length replaces U, and A is computed from it once more. B is the least-squares fit to the
kernel. How well the states fit is for `Realisation.chunks` to say (docs/appendix/engine-mathematics.md,
"Convolutions").
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor

from statesize.operators import Convolution
from statesize.spectra.cut import Cut
from statesize.spectra.engine import Counts, HankelBlocks
from statesize.spectra.exact.dense import block_spectra
from statesize.spectra.factorisation import frobenius_norm, triangular_factor
from statesize.spectra.shifts.bordered import BorderedChunks
from statesize.spectra.spectrum import ROUND_OFF, Spectrum

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
    blocks = (hankel_matrix(kernel, *shape)[..., None, :, :] for shape in distinct)
    spectrum = block_spectra(blocks, cut.limits(kernel.device), kernel.new_zeros((*kernel.shape[:-1], 0)))
    if not distinct:
        return spectrum
    at = torch.tensor([distinct[shape] for shape in shapes], dtype=torch.int64, device=kernel.device)
    return replace(spectrum, values=spectrum.values[..., at, :], error_bound=spectrum.error_bound[..., at])


def block_shapes(cut: Cut, taps: int) -> list[tuple[int, int]]:
    """(rows, columns) at each position of what a kernel can make different from 0, the larger number first."""
    sides = [[max(1, min(side, taps - 1)) for side in cut.shape(i)] for i in cut.positions]
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


_linalg, _fft = cast("Any", torch.linalg), cast("Any", torch.fft)
# Singular values of the Hankel matrix that are left out, relative to the largest, where those above `dropped` are too
# many, as for kernels that were rounded to float32.
_ROUNDED = 1e-7
# Random vectors for the range of the Hankel matrix that must turn out to be more than enough.
_SPARE = 8
# Positions per vector, where more are tried: with more states, factorisations cost more than to eliminate without any.
_POSITIONS_A_VECTOR = 16


@dataclass(frozen=True, eq=False)
class Realisation:
    """States that make E kernels: k_{1+n} ≈ C Aⁿ B, n = 0 … L − 2."""

    observability: Tensor  # C Aᵗ, t = 0 … L − 2, (E, L − 1, r)
    reachability: Tensor  # (Aˢ B)ᵀ, s = 0 … c b − 1 for c chunks of b positions that hold L / 2, (E, c b, r)
    power: Tensor  # Aᵇ, (E, r, r)
    kernel: Tensor  # C Aⁿ B, (E, L − 1)
    misfit: Tensor  # k_{1+n} − C Aⁿ B, (E, L − 1)
    largest: Tensor  # σ_1 of the block in the middle, (E,)

    def chunks(self, width: int) -> BorderedChunks:
        """Bordered chunks of positions 0 … L / 2 and a few more in the order of the kernels, b as in `realise`."""
        # The rows C Aᵗ that lie behind a chunk are Q S, the rows (Aˢ B)ᵀ before it are Q' L, with orthonormal columns
        # in Q and Q'; so the core is S Aᵇ Lᵀ, as for any recurrence. What happens inside a chunk is the same in each.
        C, B, phi = self.observability, self.reachability, self.power
        entries, lags, r = C.shape
        count = B.shape[1] // width
        # S begins with the rows behind the last chunk, L with none; each then takes in one chunk of rows after another.
        behind = lags + 1 - count * width
        zero = C.new_zeros(entries, r, r)
        S_factors, L_factors = [triangular_factor(torch.cat([zero, C[:, :behind]], 1))], [zero]
        for k in range(count - 1):
            rows = C[:, behind + k * width :][:, :width], B[:, k * width :][:, :width]
            stacks = [torch.cat(pair, 1) for pair in zip((S_factors[-1], L_factors[-1]), rows, strict=True)]
            one, other = triangular_factor(torch.stack(stacks))
            S_factors.append(one)
            L_factors.append(other)
        S, L = torch.stack(S_factors[::-1], 1), torch.stack(L_factors, 1)
        shown, written = C[:, None, :width], B[:, None, :width].flip(-2).mT
        U, sigma, Vh = _linalg.svd(S @ phi[:, None] @ L.mT)
        lag = torch.arange(width, device=C.device)
        lag = lag[:, None] - lag - 1
        inside = torch.where(lag >= 0, self.kernel[:, lag.clamp(min=0)], 0)[:, None].expand(-1, count, -1, -1)
        error, summed = self._distance(width, self._round_off(S, L, shown, written))
        parts = shown @ L.mT @ Vh.mT, inside, sigma, U.mT @ S @ written, error, summed
        return BorderedChunks(*(part.flatten(0, 1) for part in parts))

    def _distance(self, width: int, round_off: Tensor) -> tuple[Tensor, Tensor]:
        # Bounds on the norm and on the sum of the singular values of what is not realised (Mirsky), for each chunk.
        # A block of i columns of the misfit e has no Frobenius norm beyond √i ‖e‖₂, and a sum beyond √i times that.
        whole = circulant_norm(self.misfit)[:, None]
        count = round_off.shape[1]
        root = (width * torch.arange(1, count + 1, dtype=whole.dtype, device=whole.device)).sqrt()
        part = root * self.misfit.square().sum(-1, keepdim=True).sqrt()
        # (C Aᵗ)(Aˢ B) for s < b, as computed, against C Aᵗ⁺ˢ B; each s comes again in every chunk.
        lag = torch.arange(self.kernel.shape[-1], device=whole.device)
        lag = lag[:width, None] + lag
        inside = lag < self.kernel.shape[-1]
        fitted = self.kernel[:, torch.where(inside, lag, 0)]
        uneven = torch.where(inside, self.reachability[:, :width] @ self.observability.mT - fitted, 0)
        rounded = count**0.5 * frobenius_norm(uneven)[:, None] + round_off
        error, summed = torch.minimum(whole, part) + rounded, root * (part + rounded)
        return torch.nan_to_num(error, nan=torch.inf), torch.nan_to_num(summed, nan=torch.inf)

    def _round_off(self, S: Tensor, L: Tensor, shown: Tensor, written: Tensor) -> Tensor:
        # From one chunk to the next Aᵇ moves from one factor of (C Aᵗ)(Aˢ B) to the other, at most once for each
        # chunk, and each time both are rounded; S and L are factorised again in every chunk.
        count, epsilon = S.shape[1], ROUND_OFF * torch.finfo(S.dtype).eps
        gain = (self.power.abs().sum(-1).amax(-1) * self.power.abs().sum(-2).amax(-1)).sqrt()
        moved = 2 * count * gain * frobenius_norm(self.observability) * frobenius_norm(self.reachability)
        ahead = torch.hypot(frobenius_norm(shown), frobenius_norm(S) * gain[:, None])
        behind = torch.hypot(frobenius_norm(L) * gain[:, None], frobenius_norm(written))
        return epsilon * (moved[:, None] + (count + 2) * ahead * behind)


def realise(kernel: Tensor, width: int, vectors: int, dropped: float) -> tuple[Realisation, Tensor] | None:
    """States of those kernels k_1 … k_{L−1}, (E, L − 1), for which few may do, and which these are, (E',) int64."""
    basis, sigma, order, chosen = _range(kernel, vectors, dropped)
    if not chosen.numel():
        return None
    # Directions that a kernel does not need are 0 and stay so.
    alive = (torch.arange(max(1, int(order.max())), device=kernel.device) < order[:, None])[:, None]
    lags, kernel = kernel.shape[-1], kernel[chosen]
    observability, _, _ = _observability(basis[..., : alive.shape[-1]] * alive, lags, width)
    observability, A, power = _observability(_linalg.qr(observability).Q * alive, lags, width)
    Q, R = _linalg.qr(observability)
    R = R + torch.diag_embed((~alive).squeeze(-2).to(R.dtype))
    B = _linalg.solve_triangular(R, Q.mT @ kernel[..., None], upper=True)
    count = -(-((lags + 1) // 2 + 1) // width)
    reachability, _ = _powers(B.mT, A.mT, count * width, width)
    fitted = (observability @ B).squeeze(-1)
    parts = observability, reachability, power, fitted, kernel - fitted, sigma[:, 0]
    # Powers that overflow leave a kernel to other ways.
    usable = torch.stack([torch.isfinite(part).flatten(1).all(-1) for part in parts[:4]]).all(0)
    return (Realisation(*(part[usable] for part in parts)), chosen[usable]) if bool(usable.any()) else None


def _range(kernel: Tensor, vectors: int, dropped: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The middle block where few vectors span it: left singular vectors, σ, how many to keep, and of which kernels."""
    lags = kernel.shape[-1]
    columns = (lags + 1) // 2
    rows, size = lags + 1 - columns, power_of_two(lags)
    spectrum: Tensor = _fft.rfft(kernel, size)[..., None]

    def product(x: Tensor, rank: int) -> Tensor:
        # Σ_c k_{1+r+c} x_c is a correlation.
        return _fft.irfft(spectrum * _fft.rfft(x, size, dim=-2).conj(), size, dim=-2)[:, :rank]

    most, tried = lags // _POSITIONS_A_VECTOR, min(vectors, columns)
    while True:
        generator = torch.Generator().manual_seed(0)
        start = torch.randn(columns, tried, generator=generator, dtype=torch.float64).to(kernel)
        Q = _linalg.qr(product(start, rows)).Q
        U, sigma, _ = _linalg.svd(triangular_factor(product(Q, columns)).mT)
        order, rounded = ((sigma > floor * sigma[:, :1]).sum(-1) for floor in (dropped, _ROUNDED))
        many = order > tried - _SPARE
        if not bool(many.any()) or 2 * tried > min(most, columns):
            break
        tried *= 2
    order = torch.where(many, rounded, order)
    enough = order <= tried - _SPARE
    return (Q @ U)[enough], sigma[enough], order[enough], enough.nonzero().squeeze(-1)


def _observability(basis: Tensor, count: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
    """C Aᵗ for t < count, A and Aᵇ from an orthonormal basis U (E, m, r) of the first m of them."""
    last = basis[:, -1:]
    shifted = basis[:, :-1].mT @ basis[:, 1:]
    # Least squares with (UᵀU − uᵀu)⁻¹ = I + uᵀu / (1 − uuᵀ), u the last row.
    A = shifted + last.mT @ (last @ shifted) / (1 - last @ last.mT)
    rows, power = _powers(basis[:, :1], A, count, width)
    return rows, A, power


def _powers(row: Tensor, A: Tensor, count: int, width: int) -> tuple[Tensor, Tensor]:
    """Rows x Aᵗ for t < count, (E, count, r), from x (E, 1, r), and Aᵇ."""
    block, power = row, A
    while block.shape[1] < width:
        block, power = torch.cat([block, block @ power], 1), power @ power
    blocks = [block]
    while len(blocks) * width < count:
        blocks.append(blocks[-1] @ power)
    return torch.cat(blocks, 1)[:, :count], power
