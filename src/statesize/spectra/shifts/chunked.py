"""Recurrences in chunks: counts and entropies at every position for the price of one factorisation a chunk."""

from __future__ import annotations

from functools import cached_property
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

from statesize.operators import Recurrence
from statesize.operators.transition import DeltaTransition, DiagonalTransition, FullTransition, Transition
from statesize.spectra.bounds import carried_error
from statesize.spectra.cut import Cut
from statesize.spectra.engine import Counts, HankelBlocks
from statesize.spectra.factorisation import frobenius_norm, triangular_factor
from statesize.spectra.shifts.bordered import BorderedChunks
from statesize.spectra.shifts.certified import CertifiedBlocks
from statesize.spectra.shifts.delta_chunk import delta_chunk


class ChunkedBlocks(HankelBlocks):
    """The blocks of a recurrence: counts from wide chunks, all that takes many shifts from narrower ones.

    A shift costs b² a position, the factorisations of the states n³/b, so neither width is made before it is asked.

    Args:
        recurrence: Any recurrence.
        cut: Which blocks, not windowed.
        width: Positions of a wide chunk, a power of 2.
    """

    def __init__(self, recurrence: Recurrence, cut: Cut, width: int) -> None:
        self._recurrence, self._cut, self._width = recurrence, cut, width

    @property
    def error_bound(self) -> Tensor:  # pyright: ignore[reportIncompatibleVariableOverride]
        """δ ≥ |σ̂ − σ| of a width that was made, (..., P)."""
        return self._made.error_bound

    def norms(self) -> Tensor:
        """‖H_i‖_F, (..., P)."""
        return self._made.norms()

    def counts(self, thresholds: Tensor) -> Counts:
        """#{σ > τ} for absolute thresholds (K,)."""
        return (self._wide if thresholds.numel() else self._made).counts(thresholds)

    def relative_counts(self, ratios: Tensor, accuracy: float = 0.0) -> Counts:
        """#{σ > ρ σ_1} for ratios (R,)."""
        return (self._narrow if ratios.numel() else self._made).relative_counts(ratios, accuracy)

    def entropies(self, accuracy: float) -> tuple[Tensor, Tensor]:
        """Entropy-ESS to a relative accuracy and a bound on its error, both (..., P)."""
        return self._narrow.entropies(accuracy)

    def singular_values(self) -> Tensor:
        """Not given by this engine; an EngineError says so."""
        return self._made.singular_values()

    @cached_property
    def _wide(self) -> CertifiedBlocks:
        return self._of_width(self._width)

    @cached_property
    def _narrow(self) -> CertifiedBlocks:
        return self._of_width(max(1, self._width // 2))

    @property
    def _made(self) -> CertifiedBlocks:
        """Blocks of a width that was needed anyway: for what both know, or where only a shape is asked."""
        return self._narrow if "_narrow" in vars(self) else self._wide

    def _of_width(self, width: int) -> CertifiedBlocks:
        chunks = recurrence_chunks(self._recurrence, width)
        return CertifiedBlocks(chunks, self._recurrence.batch_shape, self._cut, _rank(self._recurrence))


def chunk_width(states: int) -> int:
    """Positions of a wide chunk.

    Args:
        states: n.

    Returns:
        b, a power of 2.
    """
    return 32 if states < 96 else 64


def chunked_blocks(recurrence: Recurrence, cut: Cut, width: int | None = None) -> ChunkedBlocks:
    """Counts and entropies of a recurrence, linear in L.

    Args:
        recurrence: Any recurrence.
        cut: Which blocks, not windowed.
        width: Positions of a wide chunk, a power of 2; None for what is fastest.

    Returns:
        The blocks; without gradients.
    """
    return ChunkedBlocks(recurrence, cut, width or chunk_width(_rank(recurrence)))


def _rank(recurrence: Recurrence) -> int:
    return int(recurrence.state_size()[0])


@torch.no_grad()
def recurrence_chunks(recurrence: Recurrence, width: int) -> BorderedChunks:
    """The bordered chunks of a recurrence; O(L/b (n³ + n² b)).

    Within a chunk [i0, i1): Φ its transition, C_t Φ(t, i0) what it shows of the state before it, Φ(i1, s) B_s what
    its inputs leave after it. Square roots of the two Gramians are carried from chunk to chunk by QR,

        L_{i1}ᵀ = R of qr([(Φ L_{i0})ᵀ; (Φ(i1, s) B_s)ᵀ]),    S_{i0} = R of qr([C_t Φ(t, i0); S_{i1} Φ]),

    and the core is S_{i1} Φ L_{i0}.

    Args:
        recurrence: Any recurrence, of batch shape (...).
        width: b, a power of 2.

    Returns:
        Chunks in the order of the flattened batch, then of the positions; N = entries × ⌈L / b⌉. Positions past
        L − 1 belong to the padding.
    """
    real = recurrence.with_real_output()
    observed, inside, arriving, phi = _within(real, width)
    shape, chunks, states = observed.shape[:-3], observed.shape[-3], observed.shape[-1]
    zero = observed.new_zeros((*shape, states, states))
    reach = [zero]
    for k in range(chunks - 1):
        stack = torch.cat([(phi[..., k, :, :] @ reach[-1]).mH, arriving[..., k, :, :].mH], -2)
        reach.append(triangular_factor(stack).mH)
    observe = [zero]
    for k in range(chunks - 1, 0, -1):
        stack = torch.cat([observed[..., k, :, :], observe[-1] @ phi[..., k, :, :]], -2)
        observe.append(triangular_factor(stack))
    L, S = torch.stack(reach, -3), torch.stack(observe[::-1], -3)
    U, sigma, Vh = cast("Any", torch.linalg).svd(S @ phi @ L)
    past, future = observed @ L @ Vh.mH, U.mH @ (S @ arriving)
    gain = (phi.abs().sum(-1).amax(-1) * phi.abs().sum(-2).amax(-1)).sqrt()
    sizes = _Sizes(gain, frobenius_norm(observed), frobenius_norm(arriving), torch.zeros_like(gain))
    if isinstance(real.transition, DeltaTransition):
        sizes = sizes.or_more(_before_erasing(real, real.transition, width))
    error = _error(L, S, sizes, observed.shape[-2])
    if inside.is_complex():
        inside = inside.real
    return BorderedChunks(
        past.flatten(0, -3), inside.flatten(0, -3), sigma.flatten(0, -2), future.flatten(0, -3), error.flatten()
    )


def _within(real: Recurrence, width: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """C_t Φ(t, i0) (..., c, b, n), T inside (..., c, b, b), Φ(i1, s) B_s (..., c, n, b) and Φ (..., c, n, n)."""
    trailing = 3 if isinstance(real.transition, FullTransition) else 2
    transition: Transition = real.transition.map(lambda part: _split(part, trailing, width))
    B, C = (_split(part.expand(*real.batch_shape, *part.shape[-2:]), 2, width) for part in (real.B, real.C))
    if isinstance(transition, DeltaTransition):
        found = delta_chunk(transition.key.expand(B.shape), transition.decay, B, C)
        return found.observed, found.inside, found.arriving, found.passed
    n = B.shape[-1]
    eye = torch.eye(n, dtype=B.dtype, device=B.device)
    start = eye.expand(*B.shape[:-2], n, n)
    if isinstance(transition, DiagonalTransition):
        # Diagonal all along, so the states of past inputs and the transition itself need not be mixed.
        product = transition.decay.cumprod(-2).expand(*B.shape)
        observed, phi = C * product, torch.diag_embed(product[..., -1, :])
        start = start[..., :0]
    else:
        observed = phi = start
    state = start
    rows: list[Tensor] = []
    for t in range(width):
        state = transition.advance(t, state)
        rows.append((C[..., t, None, :] @ state).squeeze(-2))
        state = torch.cat([state, B[..., t, :, None]], -1)
    kept = start.shape[-1]
    inside = torch.stack([torch.nn.functional.pad(row[..., kept:], (0, width - t)) for t, row in enumerate(rows)], -2)
    if not isinstance(transition, DiagonalTransition):
        observed = torch.stack([row[..., :kept] for row in rows], -2)
        phi = state[..., :kept]
    return observed, inside, state[..., kept:], phi


def _split(part: Tensor, trailing: int, width: int) -> Tensor:
    """(..., L, *) of so many trailing dimensions to (..., c, b, *), with zeros behind the end."""
    length = part.shape[-trailing]
    chunks = -(-length // width)
    padded: Tensor = torch.nn.functional.pad(part, (0, 0) * (trailing - 1) + (0, chunks * width - length))
    return padded.reshape(*part.shape[:-trailing], chunks, width, *part.shape[part.ndim - trailing + 1 :])


class _Sizes(NamedTuple):
    """Of what a chunk is made of, (..., c) each.

    Attributes:
        gain: ‖Φ‖.
        shown: ‖C_t Φ(t, i0)‖_F.
        written: ‖Φ(i1, s) B_s‖_F.
        inside: What T inside is summed of, where that may be more than what it shows of the two before.
    """

    gain: Tensor
    shown: Tensor
    written: Tensor
    inside: Tensor

    def or_more(self, other: _Sizes) -> _Sizes:
        """The larger ones."""
        return _Sizes(*map(torch.maximum, self, other))


def _before_erasing(real: Recurrence, transition: DeltaTransition, width: int) -> _Sizes:
    """Sizes of a delta rule before it takes away what was stored: what is left is rounded like what was there."""
    gain = _split(transition.gain().expand(*real.batch_shape, real.length), 1, width)
    written, shown = (
        _split(part.square().sum(-1).expand(gain.shape[:-2] + part.shape[-2:-1]), 1, width) for part in (real.B, real.C)
    )
    before, after = gain.cumprod(-1).square(), gain.flip(-1).cumprod(-1).flip(-1).square()
    after = torch.nn.functional.pad(after[..., 1:], (0, 1), value=1.0)
    inside = (written.sum(-1) * shown.sum(-1)).sqrt() * gain.clamp(min=1).prod(-1)
    return _Sizes(gain.prod(-1), (shown * before).sum(-1).sqrt(), (written * after).sum(-1).sqrt(), inside)


def _error(L: Tensor, S: Tensor, sizes: _Sizes, b: int) -> Tensor:
    # As for the square-root engine, with a chunk in the place of a step: what is lost at the border after chunk k,
    # at most ε(‖L‖ + ‖Φ‖‖L‖ + ‖arriving‖), meets at most ‖S‖ of the future, wherever it is looked at.
    epsilon = 2 * (L.shape[-1] + b) * torch.finfo(S.dtype).eps
    gain, shown, written, inside = sizes
    reach, observe = frobenius_norm(L), frobenius_norm(S)
    past_step = epsilon * (gain * reach + written)
    future_step = epsilon * (shown + observe * gain)
    every = (past_step * observe + future_step * reach).sum(-1, keepdim=True)
    past, future = carried_error(gain, past_step), carried_error(gain.flip(-1), future_step.flip(-1)).flip(-1)
    # past[k] is what lies on L after chunk k, future[k] on S before it; a chunk sees them from its two borders.
    before = torch.nn.functional.pad(past[..., :-1], (1, 0))
    after = torch.nn.functional.pad(future[..., 1:], (0, 1))
    ahead = torch.hypot(shown, observe * gain)
    behind = torch.hypot(gain * reach, written)
    local = before * ahead + after * behind
    own = epsilon * (shown * reach + observe * gain * reach + observe * written + shown * written + inside)
    return torch.minimum(every, torch.nan_to_num(local, nan=torch.inf)) + own
