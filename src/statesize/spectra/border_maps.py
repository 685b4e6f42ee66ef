"""A recurrence between chosen borders: what each chunk shows of its past, leaves to its future and passes through."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

from statesize.operators import Recurrence
from statesize.operators.transition import DeltaTransition, DiagonalTransition, FullTransition

# Most positions between two borders: few chunks, that are cheap to form. Measured for n = 64.
_WIDEST = {DiagonalTransition: 128, FullTransition: 32, DeltaTransition: 64}
# Positions over which products of decays are written out one by one.
_LEAF = 8


class BorderMaps(NamedTuple):
    """The c chunks between borders 0 = β_0 < β_1 < … < β_c = L, differentiable in the recurrence's tensors.

    Attributes:
        observed: C_t Φ(t, β_k), what the outputs of a chunk show of the state before it, (..., c, b, n).
        arriving: Φ(β_{k+1}, s) B_s, what its inputs leave in the state after it, (..., c, n, b).
        passed: Φ(β_{k+1}, β_k), its whole transition, (..., c, n, n).
    """

    observed: Tensor
    arriving: Tensor
    passed: Tensor


def chosen_borders(real: Recurrence, positions: Iterable[int]) -> list[int]:
    """Positions and as many more as keep chunks narrow, with 0 and L at the ends.

    Args:
        real: The recurrence.
        positions: Cut positions that must be borders.

    Returns:
        Ascending borders.
    """
    widest = _WIDEST[type(real.transition)]
    borders = [0]
    for first, last in itertools.pairwise(sorted({0, *positions, real.length})):
        pieces = -(-(last - first) // widest)
        borders += [first + (last - first) * k // pieces for k in range(1, pieces + 1)]
    return borders


def border_maps(real: Recurrence, borders: list[int]) -> BorderMaps:
    """The chunks of a recurrence between borders, all at once.

    Narrower chunks are filled up to the widest one with steps that do nothing: A = I, B = C = 0.

    Args:
        real: A recurrence whose T is real as it stands.
        borders: From `chosen_borders`.

    Returns:
        The maps, of the recurrence's full batch shape.
    """
    starts = torch.tensor(borders[:-1], device=real.device)[:, None]
    ends = torch.tensor(borders[1:], device=real.device)[:, None]
    width = int((ends - starts).max())
    if isinstance(real.transition, DeltaTransition):
        levels, leaf = _halvings(width)
        width = leaf * 2**levels
    time = starts + torch.arange(width, device=real.device)
    inside = (time < ends)[..., None]
    time = torch.minimum(time, ends - 1)

    def chunks(part: Tensor, trailing: int = 2) -> Tensor:
        dimension = part.ndim - trailing
        taken: Tensor = part.index_select(dimension, time.flatten())
        return taken.reshape(*part.shape[:dimension], *time.shape, *part.shape[dimension + 1 :])

    shape, transition = real.batch_shape, real.transition
    B, C = (torch.where(inside, chunks(part.expand(*shape, *part.shape[-2:])), 0) for part in (real.B, real.C))
    if isinstance(transition, FullTransition):
        eye = torch.eye(B.shape[-1], dtype=B.dtype, device=B.device)
        return _full(torch.where(inside[..., None], chunks(transition.full, 3), eye), B, C)
    decay = torch.where(inside, chunks(transition.decay), 1)
    prefix, suffix = decay.cumprod(-2), _suffixes(decay)
    if isinstance(transition, DiagonalTransition):
        passed = torch.diag_embed(prefix[..., -1, :].expand(*B.shape[:-2], B.shape[-1]))
        return BorderMaps(C * prefix, (B * suffix).mT, passed)
    return _delta(chunks(transition.key.expand(*shape, *real.B.shape[-2:])), decay, B, C, prefix, suffix)


def _full(A: Tensor, B: Tensor, C: Tensor) -> BorderMaps:
    *shape, _, n = B.shape
    passed = torch.eye(n, dtype=B.dtype, device=B.device).expand(*shape, n, n)
    arriving = B.new_zeros((*shape, n, 0))
    rows: list[Tensor] = []
    for step, entering, leaving in zip(A.unbind(-3), B.unbind(-2), C.unbind(-2), strict=True):
        passed = step @ passed
        arriving = torch.cat([step @ arriving, entering[..., None]], -1)
        rows.append((leaving[..., None, :] @ passed).squeeze(-2))
    return BorderMaps(torch.stack(rows, -2), arriving, passed)


def _delta(key: Tensor, decay: Tensor, B: Tensor, C: Tensor, prefix: Tensor, suffix: Tensor) -> BorderMaps:
    # With D(s, t) the decays of the steps s + 1 … t and r_t = k_tᵀ D_t x_t what step t erases, the state is
    #   x_{t+1} = D(−1, t) x_0 − Σ_{s≤t} D(s, t) B_s r_s,   so   r_t + Σ_{s<t} k_tᵀ D(s, t) B_s r_s = k_tᵀ D(−1, t) x_0:
    # one unit triangular system a chunk (Yang et al., "Parallelizing Linear Transformers with the Delta Rule", 2024).
    # An input at s counts as r_s = −1: what arrives is D(s, b − 1) B_s times the inverse of that triangle.
    erased, shown = _through(torch.stack([key, C], -3), decay[..., None, :, :], B[..., None, :, :]).unbind(-3)
    eye = torch.eye(B.shape[-2], dtype=B.dtype, device=B.device).expand_as(erased)
    right = torch.cat([key * prefix, eye], -1)
    solved: Tensor = cast("Any", torch.linalg).solve_triangular(erased, right, upper=False, unitriangular=True)
    erasing, inverse = solved[..., : B.shape[-1]], solved[..., B.shape[-1] :]
    left = (suffix * B).mT
    passed = torch.diag_embed(prefix[..., -1, :].expand(*B.shape[:-2], B.shape[-1])) - left @ erasing
    return BorderMaps(C * prefix - shown @ erasing, left @ inverse, passed)


def _through(rows: Tensor, decay: Tensor, columns: Tensor) -> Tensor:
    """rows_tᵀ D(s, t) columns_s for s ≤ t, else 0, (..., b, b), b a leaf times a power of 2."""
    # From halves to the whole: D(s, t) = D(s, m) D(m, t) across the middle m. Quotients of prefixes could be 0 / 0.
    levels, size = _halvings(rows.shape[-2])
    found = _leaves(_blocks(rows, size), _blocks(decay, size), _blocks(columns, size))
    for _ in range(levels):
        late = _blocks(rows, size)[..., 1::2, :, :] * _blocks(decay, size)[..., 1::2, :, :].cumprod(-2)
        early = _blocks(columns, size)[..., 0::2, :, :] * _suffixes(_blocks(decay, size)[..., 0::2, :, :])
        across = late @ early.mT
        top = torch.cat([found[..., 0::2, :, :], torch.zeros_like(across)], -1)
        found = torch.cat([top, torch.cat([across, found[..., 1::2, :, :]], -1)], -2)
        size *= 2
    return found.squeeze(-3)


def _blocks(part: Tensor, size: int) -> Tensor:
    return part.reshape(*part.shape[:-2], part.shape[-2] // size, size, part.shape[-1])


def _leaves(rows: Tensor, decay: Tensor, columns: Tensor) -> Tensor:
    step = torch.arange(decay.shape[-2], device=decay.device)
    factors = torch.where((step[:, None] > step)[..., None], decay[..., :, None, :], 1)
    between = factors.cumprod(-3) * (step[:, None] >= step)[..., None]
    if decay.shape[-1] == 1:
        return (rows @ columns.mT) * between.squeeze(-1)
    return (rows[..., :, None, :] * (between * columns[..., None, :, :])).sum(-1)


def _halvings(width: int) -> tuple[int, int]:
    """How often a chunk is halved until at most 8 positions are left, and how many that are, rounded up."""
    levels = (-(-width // _LEAF) - 1).bit_length()
    return levels, -(-width // 2**levels)


def _suffixes(decay: Tensor) -> Tensor:
    """Products of all later factors, (..., b, n)."""
    return torch.cat([decay[..., 1:, :], torch.ones_like(decay[..., :1, :])], -2).flip(-2).cumprod(-2).flip(-2)
