"""Recurrences in chunks: counts and entropies at every position for the price of one factorisation per chunk."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor

from statesize.operators import Operator, Recurrence
from statesize.operators.transition import (
    DeltaTransition,
    DiagonalTransition,
    FullTransition,
    RankOneTransition,
    Transition,
)
from statesize.spectra.border_maps import Chunks, delta_chunks
from statesize.spectra.cut import Cut
from statesize.spectra.engine import FALLBACK_BYTES, Engine, Footprint, largest_state, number_bytes
from statesize.spectra.exact.few_positions import are_few
from statesize.spectra.factorisation import border_factors, frobenius_norm
from statesize.spectra.shifts.bordered import BorderedChunks
from statesize.spectra.shifts.certified import CertifiedBlocks
from statesize.spectra.spectrum import Sizes, carried_errors, chunk_sizes, sizes_before_erasing, sizes_by_gain

_linalg = cast("Any", torch.linalg)


@dataclass(frozen=True)
class ChunkedEngine(Engine):
    """Counts and entropies of a recurrence, linear in L: factors at the borders of chunks only."""

    width: int | None = None  # positions of a chunk, a power of 2; None for the fastest

    name = "chunked"
    outputs = frozenset(("counts", "entropy"))
    works_on = (Recurrence,)
    operators = "recurrences"

    def slower_reason(self, operator: Operator, cut: Cut, outputs: tuple[str, ...]) -> str | None:
        """Where the state is small, or the sequence short beside it; where that ends was measured."""
        states = largest_state(operator)
        if states < 16:
            return f"only worthwhile from 16 states on, here are {states}"
        if operator.length < 16 * states:
            return f"only worthwhile from 16 positions per state on, here are {operator.length} for {states}"
        if are_few(cut):
            return f"computes all chunks of positions, and only {len(cut.positions)} positions are requested"
        return None

    def blocks(self, operator: Operator, cut: Cut) -> CertifiedBlocks:
        """The blocks by chunks; without gradients."""
        recurrence = cast("Recurrence", operator)
        rank = int(recurrence.state_size()[0])
        chunks = partial(recurrence_chunks, recurrence, self.width or chunk_width(rank))
        return CertifiedBlocks(chunks, operator.batch_shape, cut, rank)

    def footprint(self, operator: Operator, cut: Cut) -> Footprint:
        """A core, its borders and their eliminations for each chunk; full transitions are copied."""
        n = largest_state(operator)
        b = chunk_width(n)
        copied = isinstance(operator, Recurrence) and isinstance(operator.transition, FullTransition)
        # Factorisations of narrow chunks beside what is kept of wide ones.
        pair = 2 * 5 * n**2 + 14 * n * b + 12 * b**2 + (b * n**2 if copied else 0)
        return Footprint(number_bytes(operator) * -(-cut.length // b) * pair, FALLBACK_BYTES)


def chunk_width(states: int) -> int:
    """Positions of a chunk, b, a power of 2: a shift costs b² per position, the factorisations of the states n³/b."""
    return 32 if states < 96 else 64


@torch.no_grad()
def recurrence_chunks(recurrence: Recurrence, width: int) -> BorderedChunks:
    """The N = entries × ⌈L / b⌉ bordered chunks in the order of the flattened batch; O(L/b (n³ + n² b))."""
    real = recurrence.with_real_output()
    transition, B, C = _split_recurrence(real, width)
    observability, inside, reachability, phi = _within(transition, B, C)
    L, S = border_factors(observability, reachability, phi)
    U, sigma, Vh = cast("Any", torch.linalg).svd(S @ phi @ L)
    past, future = observability @ L @ Vh.mH, U.mH @ (S @ reachability)
    sizes = chunk_sizes(observability, reachability, phi)
    if isinstance(transition, DeltaTransition):
        sizes = sizes.or_more(sizes_before_erasing(transition.key, transition.decay, B, C))
    if isinstance(transition, RankOneTransition):
        sizes = sizes.or_more(sizes_by_gain(transition.gain(), B, C))
    error = _error(L, S, sizes, width)
    if inside.is_complex():
        inside = inside.real
    return BorderedChunks(
        past.flatten(0, -3), inside.flatten(0, -3), sigma.flatten(0, -2), future.flatten(0, -3), error.flatten()
    )


def _split_recurrence(real: Recurrence, width: int) -> tuple[Transition, Tensor, Tensor]:
    """Transitions, B and C of its c chunks, (..., c, b, *)."""
    trailing = 3 if isinstance(real.transition, FullTransition) else 2
    B, C = (_split(part.expand(*real.batch_shape, *part.shape[-2:]), 2, width) for part in (real.B, real.C))
    return real.transition.map(lambda part: _split(part, trailing, width)), B, C


def _within(transition: Transition, B: Tensor, C: Tensor) -> Chunks:
    """The c chunks of a recurrence, each by itself."""
    if isinstance(transition, DeltaTransition):
        return delta_chunks(transition.key.expand(B.shape), transition.decay, B, C)
    n = B.shape[-1]
    eye = torch.eye(n, dtype=B.dtype, device=B.device)
    start = eye.expand(*B.shape[:-2], n, n)
    if isinstance(transition, DiagonalTransition):
        # Diagonal all along, so the states of past inputs and the transition itself need not be mixed.
        product = transition.decay.cumprod(-2).expand(*B.shape)
        observability, phi = C * product, torch.diag_embed(product[..., -1, :])
        start = start[..., :0]
    else:
        observability = phi = start
    state = start
    rows: list[Tensor] = []
    width = B.shape[-2]
    for t in range(width):
        state = transition.advance(t, state)
        rows.append((C[..., t, None, :] @ state).squeeze(-2))
        state = torch.cat([state, B[..., t, :, None]], -1)
    carried = start.shape[-1]
    inside = torch.stack(
        [torch.nn.functional.pad(row[..., carried:], (0, width - t)) for t, row in enumerate(rows)], -2
    )
    if not isinstance(transition, DiagonalTransition):
        observability = torch.stack([row[..., :carried] for row in rows], -2)
        phi = state[..., :carried]
    return Chunks(observability, inside, state[..., carried:], phi)


def _split(part: Tensor, trailing: int, width: int) -> Tensor:
    """(..., L, *) of so many trailing dimensions to (..., c, b, *), with zeros behind the end."""
    length = part.shape[-trailing]
    chunks = -(-length // width)
    padded: Tensor = torch.nn.functional.pad(part, (0, 0) * (trailing - 1) + (0, chunks * width - length))
    return padded.reshape(*part.shape[:-trailing], chunks, width, *part.shape[part.ndim - trailing + 1 :])


def _error(L: Tensor, S: Tensor, sizes: Sizes, b: int) -> Tensor:
    epsilon = 2 * (L.shape[-1] + b) * torch.finfo(S.dtype).eps
    L_norm, S_norm = frobenius_norm(L), frobenius_norm(S)
    past, future, every = carried_errors(L_norm, S_norm, sizes, epsilon)
    gain, shown, written, inside = sizes
    # past[k] is what lies on L after chunk k, future[k] on S before it; a chunk sees them from its two borders.
    before = torch.nn.functional.pad(past[..., :-1], (1, 0))
    after = torch.nn.functional.pad(future[..., 1:], (0, 1))
    ahead = torch.hypot(shown, S_norm * gain)
    behind = torch.hypot(gain * L_norm, written)
    local = before * ahead + after * behind
    own = epsilon * (shown * L_norm + S_norm * gain * L_norm + S_norm * written + shown * written + inside)
    return torch.minimum(every, torch.nan_to_num(local, nan=torch.inf)) + own
