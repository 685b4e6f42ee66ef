"""Operators of low numerical rank: the past is compressed chunk by chunk, and T is never held whole; O(L² (r + b)).

W stands for the past of a chunk [i0, i1): its columns have the singular values of T[i0:, :i0]. With

    [M Z] = R of qr([W[b:], T[i1:, i0:i1]]),    U Σ Vᵀ = svd([M Z]),

the next W is [W[b:], T[i1:, i0:i1]] V, without the columns of negligible σ. Every dropped σ moves the singular values
of all later blocks by at most √Σσ², and these add up (docs/appendix/engine-mathematics.md, "Bordered chunks").
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor

from statesize.check import require_finite
from statesize.operators import Dense, Operator
from statesize.spectra.cut import Cut
from statesize.spectra.engine import DOUBLE, FALLBACK_BYTES, Engine, Footprint
from statesize.spectra.exact.exact import exact_operations
from statesize.spectra.factorisation import singular_values, triangular_factor
from statesize.spectra.shifts.bordered import BorderedChunks
from statesize.spectra.shifts.certified import CertifiedBlocks

_linalg = cast("Any", torch.linalg)
# Columns of T that are formed at once, a multiple of the width.
_PANEL = 128
_WIDTH = 32
_DROPPED = 1e-10
# Operations for each entry of T at least: its columns are read, and chunks compressed, whatever the positions.
_OPERATIONS = 200.0
# Length below which `tridiagonal` takes less time, whatever the rank; measured.
_LEAST = 768


@dataclass(frozen=True)
class StreamingEngine(Engine):
    """Counts and entropies of an operator whose H_i have few singular values above 1e-10 σ_1; T is read by columns."""

    width: int = _WIDTH  # positions per chunk
    dropped: float = _DROPPED  # what a chunk may drop, relative to the largest singular value met so far

    name = "streaming"
    outputs = frozenset(("counts", "entropy"))
    # It reads T by columns and never holds it, but here T is held.
    slower_on = (Dense,)

    def slower_reason(self, operator: Operator, cut: Cut, outputs: tuple[str, ...]) -> str | None:
        """Where T must be formed, where few positions are requested, and where T has a high rank."""
        if not has_columns(operator):
            # Attention maps of trained models were never compressible, and asking each of them takes time.
            return "reads T by columns and never holds it, but here T is formed whole"
        if cut.length < _LEAST:
            return f"only worthwhile from {_LEAST} positions on"
        own, plain = _OPERATIONS * cut.length**2, exact_operations(cut)
        if plain < own:
            return f"takes {own:.1g} operations, the singular values take {plain:.1g}"
        if is_compressible(operator, self.width):
            return None
        return "only worthwhile when T has low numerical rank; a sample of its columns suggests that it does not"

    def blocks(self, operator: Operator, cut: Cut) -> CertifiedBlocks:
        """The blocks by compressed chunks; without gradients."""
        compress = partial(compressed_chunks, operator, self.width, dropped=self.dropped)
        return CertifiedBlocks(compress, operator.batch_shape, cut, cut.length)

    def footprint(self, operator: Operator, cut: Cut) -> Footprint:
        """Strips of columns and chunks of a low rank; all of T where single columns cost as much."""
        row, formed = DOUBLE * cut.length, 0 if has_columns(operator) else 2 * cut.length
        # At least a panel of columns and the chunks of a rank of 32, and T twice (as it is checked) where it is formed.
        return Footprint(row * (2400 + formed), FALLBACK_BYTES, row * (_PANEL + 3 * 32 + formed))


@torch.no_grad()
def compressed_chunks(
    operator: Operator, width: int = _WIDTH, positions: int | None = None, dropped: float = _DROPPED
) -> BorderedChunks:
    """Bordered chunks of the first positions of T (None for all L), in the order of the flattened batch."""
    source = operator
    if not has_columns(operator):
        # It would form all of T for each chunk.
        matrix = operator.dense()
        require_finite("T", matrix)
        source = Dense(matrix)
    length, entries = operator.length, operator.batch_shape.numel()
    count = -(-(positions or length) // width)
    past = torch.zeros(entries, length, 0, dtype=operator.dtype, device=operator.device)
    error, summed = past.new_zeros(entries), past.new_zeros(entries)
    top = past.new_zeros(entries)
    chunks: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
    errors: list[Tensor] = []
    sums: list[Tensor] = []
    panel, panel_first = past, 0
    for k in range(count):
        first, last = k * width, min(length, (k + 1) * width)
        if k % (_PANEL // width) == 0:
            panel, panel_first = _panel(source, first, min(length, first + _PANEL)), first
        columns = panel[:, first - panel_first :, first - panel_first : last - panel_first]
        inside = columns[:, : last - first].tril(-1)
        here, tall = past[:, : last - first], torch.cat([past[:, last - first :], columns[:, last - first :]], -1)
        factor = triangular_factor(tall) if tall.shape[-2] > tall.shape[-1] else tall
        r = here.shape[-1]
        chunks.append(_rotated(here, inside, factor[..., :r], factor[..., r:], width))
        errors.append(error)
        sums.append(summed)
        if last == length:
            break
        _, sigma, Vh = _linalg.svd(factor, full_matrices=False)
        top = torch.maximum(top, sigma[:, 0])
        rank = int((sigma > dropped * top[:, None]).sum(-1).max()) if sigma.numel() else 0
        omitted = sigma[:, rank:].square().sum(-1).sqrt()
        roundoff = 8 * torch.finfo(tall.dtype).eps * tall.shape[-1] * top
        error = error + omitted + roundoff
        summed = summed + sigma[:, rank:].sum(-1) + tall.shape[-1] * roundoff
        past = tall @ Vh[:, :rank].mT
    return _stacked(chunks, torch.stack(errors, 1).flatten(), torch.stack(sums, 1).flatten(), width)


def _panel(source: Operator, first: int, last: int) -> Tensor:
    """T[first:, first:last] of all entries, (E, L − first, last − first)."""
    columns = source.columns(first, last)
    shape = (source.length - first, last - first)
    if not bool(torch.isfinite(columns.sum())):
        require_finite(f"T[{first}:, {first}:{last}]", columns)
    return columns.expand(*source.batch_shape, *shape).reshape(-1, *shape)


def _rotated(
    past: Tensor, inside: Tensor, core: Tensor, future: Tensor, width: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """R V, T inside, Σ and Uᵀ Z for the core M = U Σ Vᵀ, the chunk padded to its full width."""
    U, sigma, Vh = _linalg.svd(core, full_matrices=True)
    rotated, turned = past @ Vh.mT, U.mT @ future
    k = max(core.shape[-2:])
    return (
        _grown(rotated, width, k),
        _grown(inside, width, width),
        _grown(sigma, sigma.shape[0], k),
        _grown(turned, k, width),
    )


def _stacked(
    chunks: list[tuple[Tensor, Tensor, Tensor, Tensor]], error: Tensor, summed: Tensor, width: int
) -> BorderedChunks:
    k = max(core.shape[-1] for _, _, core, _ in chunks)
    past = torch.stack([_grown(part, width, k) for part, _, _, _ in chunks], 1)
    inside = torch.stack([part for _, part, _, _ in chunks], 1)
    core = torch.stack([_grown(part, part.shape[0], k) for _, _, part, _ in chunks], 1)
    future = torch.stack([_grown(part, k, width) for _, _, _, part in chunks], 1)
    past, inside, core, future = (part.flatten(0, 1) for part in (past, inside, core, future))
    return BorderedChunks(past, inside, core, future, error, summed)


def _grown(matrices: Tensor, rows: int, columns: int) -> Tensor:
    """The matrices with zeros below and to the right; torch's pad refuses empty ones in the older releases."""
    grown = matrices.new_zeros(*matrices.shape[:-2], rows, columns)
    grown[..., : matrices.shape[-2], : matrices.shape[-1]] = matrices
    return grown


def has_columns(operator: Operator) -> bool:
    """Whether columns of T cost less than T."""
    return type(operator).columns is not Operator.columns


@torch.no_grad()
def is_compressible(operator: Operator, width: int = _WIDTH) -> bool:
    """Whether four strips of columns, seen from the second half of the sequence, span at most half their number."""
    half = operator.length // 2
    if half < 4 * width:
        return False
    firsts = [int(first) for first in torch.linspace(0, half - width, 4)]
    strips = [operator.columns(first, first + width)[..., half - first :, :] for first in firsts]
    columns = torch.cat(strips, -1)
    # Columns that a window hides from there do not count.
    seen, sigma = (columns != 0).any(-2).sum(-1), singular_values(triangular_factor(columns))
    return bool(((sigma > _DROPPED * sigma[..., :1]).sum(-1) <= seen // 2).all())
