"""A recurrence between chosen borders: observability, reachability and transition of each chunk."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import fields
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

from statesize.operators import Recurrence
from statesize.operators.transition import (
    ONES,
    DeltaTransition,
    DiagonalTransition,
    FullTransition,
    PairTransition,
    RankOneTransition,
    Transition,
)

WIDEST = {DiagonalTransition: 128, FullTransition: 32, DeltaTransition: 64, RankOneTransition: 32, PairTransition: 32}
"""Most positions between two borders: few chunks, that are cheap to form. Measured for n = 64."""

_linalg = cast("Any", torch.linalg)


class BorderMaps(NamedTuple):
    """The c chunks between borders 0 = β_0 < β_1 < … < β_c = L, differentiable in the recurrence's tensors."""

    observability: Tensor  # C_t Φ(t, β_k), what the outputs of a chunk read of the state before it, (..., c, b, n)
    reachability: Tensor  # Φ(β_{k+1}, s) B_s, what its inputs leave in the state after it, (..., c, n, b)
    transition: Tensor  # Φ(β_{k+1}, β_k), (..., c, n, n)


def chosen_borders(real: Recurrence, positions: Iterable[int], widest: int | None = None) -> list[int]:
    """Positions and as many more as keep chunks narrow, ascending, with 0 and L at the ends."""
    widest = widest or WIDEST[type(real.transition)]  # pyright: ignore[reportArgumentType]
    borders = [0]
    for first, last in itertools.pairwise(sorted({0, *positions, real.length})):
        pieces = -(-(last - first) // widest)
        borders += [first + (last - first) * k // pieces for k in range(1, pieces + 1)]
    return borders


def border_maps(real: Recurrence, borders: list[int]) -> BorderMaps:
    """The chunks of a recurrence, whose T is real as it stands, between borders, of its full batch shape."""
    return maps_of_chunks(*chunks_between(real, borders))


def chunks_between(real: Recurrence, borders: list[int]) -> tuple[Transition, Tensor, Tensor]:
    """Transitions, B and C of the chunks between borders, (..., c, b, n) each, full transitions (..., c, b, n, n)."""
    # Narrower chunks are filled up to the widest one with steps that do nothing: A = I, B = C = 0.
    starts = torch.tensor(borders[:-1], device=real.device)[:, None]
    ends = torch.tensor(borders[1:], device=real.device)[:, None]
    width = int((ends - starts).max())
    if isinstance(real.transition, DeltaTransition):
        width = delta_width(width)
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
        return FullTransition(torch.where(inside[..., None], chunks(transition.full, 3), eye)), B, C
    named = ((field.name in ONES, chunks(getattr(transition, field.name))) for field in fields(transition))
    return type(transition)(*(torch.where(inside, part, float(neutral)) for neutral, part in named)), B, C


def maps_of_chunks(transition: Transition, B: Tensor, C: Tensor) -> BorderMaps:
    """What chunks do, from what `chunks_between` gives."""
    if isinstance(transition, DeltaTransition):
        return delta_chunks(transition.key.expand_as(B), transition.decay, B, C)
    if not isinstance(transition, DiagonalTransition):
        return _stepped(transition, B, C)
    prefix = transition.decay.cumprod(-2)
    product = torch.diag_embed(prefix[..., -1, :].expand(*B.shape[:-2], B.shape[-1]))
    return BorderMaps(C * prefix, (B * later_decay(transition.decay)).mT, product)


def _stepped(transition: Transition, B: Tensor, C: Tensor) -> BorderMaps:
    *shape, width, n = B.shape
    product = torch.eye(n, dtype=B.dtype, device=B.device).expand(*shape, n, n)
    reachability = B.new_zeros((*shape, n, 0))
    rows: list[Tensor] = []
    for t in range(width):
        product = transition.advance(t, product)
        reachability = torch.cat([transition.advance(t, reachability), B[..., t, :, None]], -1)
        rows.append((C[..., t, None, :] @ product).squeeze(-2))
    return BorderMaps(torch.stack(rows, -2), reachability, product)


# Positions over which products of decays are written out one by one.
_LEAF = 8


def delta_chunks(key: Tensor, decay: Tensor, B: Tensor, C: Tensor) -> BorderMaps:
    """Chunks of a delta rule from k, D, B and C, (..., b, n) each, D also (..., b, 1), b as `delta_width` gives it."""
    erased, shown = _through(torch.stack([key, C], -3), decay[..., None, :, :], B[..., None, :, :]).unbind(-3)
    eye = torch.eye(B.shape[-2], dtype=B.dtype, device=B.device).expand_as(erased)
    prefix = decay.cumprod(-2)
    right = torch.cat([key * prefix, eye], -1)
    solved: Tensor = _linalg.solve_triangular(erased, right, upper=False, unitriangular=True)
    erasing, inverse = solved[..., : B.shape[-1]], solved[..., B.shape[-1] :]
    left = (later_decay(decay) * B).mT
    transition = torch.diag_embed(prefix[..., -1, :].expand(*B.shape[:-2], B.shape[-1])) - left @ erasing
    return BorderMaps(C * prefix - shown @ erasing, left @ inverse, transition)


def delta_width(width: int) -> int:
    """The least width of a chunk, at least this one, that can be halved down to a few positions."""
    levels, leaf = _halvings(width)
    return leaf * 2**levels


def _through(rows: Tensor, decay: Tensor, columns: Tensor) -> Tensor:
    """rows_tᵀ D(s, t) columns_s for s ≤ t, else 0, (..., b, b), b a leaf times a power of 2."""
    # From halves to the whole: D(s, t) = D(s, m) D(m, t) across the middle m. Quotients of prefixes could be 0 / 0.
    levels, size = _halvings(rows.shape[-2])
    product = _leaves(_blocks(rows, size), _blocks(decay, size), _blocks(columns, size))
    for _ in range(levels):
        late = _blocks(rows, size)[..., 1::2, :, :] * _blocks(decay, size)[..., 1::2, :, :].cumprod(-2)
        early = _blocks(columns, size)[..., 0::2, :, :] * later_decay(_blocks(decay, size)[..., 0::2, :, :])
        across = late @ early.mT
        top = torch.cat([product[..., 0::2, :, :], torch.zeros_like(across)], -1)
        product = torch.cat([top, torch.cat([across, product[..., 1::2, :, :]], -1)], -2)
        size *= 2
    return product.squeeze(-3)


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


def later_decay(decay: Tensor) -> Tensor:
    """Products of all later factors, (..., b, n)."""
    return torch.cat([decay[..., 1:, :], torch.ones_like(decay[..., :1, :])], -2).flip(-2).cumprod(-2).flip(-2)
