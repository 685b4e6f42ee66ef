"""A recurrence between chosen borders: observability, reachability and transition of each chunk."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from statesize.operators import Recurrence
from statesize.operators.transition import (
    DeltaTransition,
    DiagonalTransition,
    FullTransition,
    PairTransition,
    RankOneTransition,
    Transition,
    paired,
)
from statesize.spectra.shifts.delta_chunk import delta_chunks, delta_width, later_decay

WIDEST = {DiagonalTransition: 128, FullTransition: 32, DeltaTransition: 64, RankOneTransition: 32, PairTransition: 32}
"""Most positions between two borders: few chunks, that are cheap to form. Measured for n = 64."""


class BorderMaps(NamedTuple):
    """The c chunks between borders 0 = β_0 < β_1 < … < β_c = L, differentiable in the recurrence's tensors."""

    observability: Tensor  # C_t Φ(t, β_k), what the outputs of a chunk read of the state before it, (..., c, b, n)
    reachability: Tensor  # Φ(β_{k+1}, s) B_s, what its inputs leave in the state after it, (..., c, n, b)
    transition: Tensor  # Φ(β_{k+1}, β_k), (..., c, n, n)


def chosen_borders(real: Recurrence, positions: Iterable[int]) -> list[int]:
    """Positions and as many more as keep chunks narrow, ascending, with 0 and L at the ends."""
    widest = WIDEST[type(real.transition)]
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
    decay = torch.where(inside, chunks(transition.decay), 1)
    if isinstance(transition, DiagonalTransition):
        return DiagonalTransition(decay), B, C
    if isinstance(transition, RankOneTransition):
        column, row = (torch.where(inside, chunks(part), 0) for part in (transition.column, transition.row))
        return RankOneTransition(decay, column, row), B, C
    if isinstance(transition, PairTransition):
        copied = torch.where(inside, chunks(transition.copied), 0)
        return PairTransition(decay, copied, torch.where(inside, chunks(transition.kept), 1)), B, C
    key = chunks(transition.key.expand(*shape, *real.B.shape[-2:]))
    return DeltaTransition(key, chunks(transition.beta), decay), B, C


def maps_of_chunks(transition: Transition, B: Tensor, C: Tensor) -> BorderMaps:
    """What chunks do, from what `chunks_between` gives."""
    if isinstance(transition, FullTransition):
        return _stepped([partial(torch.matmul, step) for step in transition.full.unbind(-3)], B, C)
    if isinstance(transition, RankOneTransition):
        parts = (part.unbind(-2) for part in (transition.decay, transition.column, transition.row))
        return _stepped([partial(_advance, *step) for step in zip(*parts, strict=True)], B, C)
    if isinstance(transition, PairTransition):
        parts = (part.unbind(-2) for part in (transition.decay, transition.copied, transition.kept))
        return _stepped([partial(paired, *step) for step in zip(*parts, strict=True)], B, C)
    decay = transition.decay
    if isinstance(transition, DiagonalTransition):
        prefix = decay.cumprod(-2)
        product = torch.diag_embed(prefix[..., -1, :].expand(*B.shape[:-2], B.shape[-1]))
        return BorderMaps(C * prefix, (B * later_decay(decay)).mT, product)
    delta = delta_chunks(transition.key, decay, B, C)
    return BorderMaps(delta.observability, delta.reachability, delta.transition)


def _advance(decay: Tensor, column: Tensor, row: Tensor, state: Tensor) -> Tensor:
    return decay[..., None] * state + column[..., None] * (row[..., None, :] @ state)


def _stepped(steps: list[Callable[[Tensor], Tensor]], B: Tensor, C: Tensor) -> BorderMaps:
    *shape, _, n = B.shape
    product = torch.eye(n, dtype=B.dtype, device=B.device).expand(*shape, n, n)
    reachability = B.new_zeros((*shape, n, 0))
    rows: list[Tensor] = []
    for step, entering, leaving in zip(steps, B.unbind(-2), C.unbind(-2), strict=True):
        product = step(product)
        reachability = torch.cat([step(reachability), entering[..., None]], -1)
        rows.append((leaving[..., None, :] @ product).squeeze(-2))
    return BorderMaps(torch.stack(rows, -2), reachability, product)
