"""All singular values of the windows T[i:i+h, i−w:i] of a recurrence."""

from __future__ import annotations

import torch

from statesize.operators import Recurrence
from statesize.operators.transition import FullTransition, Transition
from statesize.spectra.bounds import denormal_error
from statesize.spectra.cut import Cut
from statesize.spectra.exact.sliding_window import window_factors
from statesize.spectra.factorisation import singular_values
from statesize.spectra.spectrum import Spectrum

# Numbers in one factor at every position of a stretch.
_NUMBERS_HELD = 2**22


@torch.no_grad()
def windowed_singular_values(recurrence: Recurrence, cut: Cut) -> Spectrum:
    """σ(T[i:i+h, i−w:i]) = σ(S_iᴴ L_i), with square-root factors of both windows; O(L n³ log w).

    Where a side is not cut, its factor is that of all there is. Long sequences are taken a stretch at a time, so that
    what is held does not grow with L when both sides are cut.

    Args:
        recurrence: Any recurrence.
        cut: Which blocks, cut on one side or on both.

    Returns:
        The spectrum, r = min(n, the largest min(rows, columns)); without gradients.
    """
    real = recurrence.with_real_output()
    shape, (length, states) = real.batch_shape, real.B.shape[-2:]
    r, limit = min(states, cut.largest_rank()), cut.limits(real.device)
    epsilon = 2 * (states + 1) * torch.finfo(real.dtype).eps
    B, C = real.B.expand(*shape, length, states), real.C.expand(*shape, length, states)
    values, bounds = [B.real.new_zeros((*shape, 0, r))], [B.real.new_zeros((*shape, 0))]
    order = sorted(range(len(cut.positions)), key=cut.positions.__getitem__)
    for positions in _stretches([cut.positions[k] for k in order], cut, states):
        start = 0 if cut.past is None else positions[0] - cut.past
        stop = length if cut.future is None else positions[-1] + cut.future
        inputs, outputs = B[..., start:stop, :], C[..., start:stop, :]
        reach, observe = window_factors(_part(real.transition, start, stop), inputs, outputs, cut.past, cut.future)
        at = torch.tensor(positions, device=real.device) - start
        L, S = reach.at(at - 1), observe.at(at)
        sigma = singular_values(S.factor.mH @ L.factor)[..., :r]
        values.append(torch.nn.functional.pad(sigma, (0, r - sigma.shape[-1])))
        size = S.norm * L.norm
        bounds.append(S.norm * L.error + (L.norm + L.error) * S.error + epsilon * size + denormal_error(size))
    found = torch.tensor(order, dtype=torch.int64, device=real.device).argsort()
    sigma = torch.cat(values, -2)[..., found, :]
    # A block of fewer rows or columns than states has no further singular values; what is left there is round-off.
    sigma = sigma.masked_fill(torch.arange(r, device=real.device) >= limit[:, None], 0)
    return Spectrum(sigma, torch.cat(bounds, -1)[..., found], limit)


def stretch_length(cut: Cut, states: int) -> int:
    """How much of the sequence is looked at at once.

    Args:
        cut: Which blocks, cut on one side or on both.
        states: n.

    Returns:
        A number of positions; all of them unless both sides are cut.
    """
    if cut.past is None or cut.future is None:
        return cut.length
    return min(cut.length, max(3 * (cut.past + cut.future), _NUMBERS_HELD // states**2))


def _stretches(positions: list[int], cut: Cut, states: int) -> list[list[int]]:
    """Ascending positions, together where their windows share most of what they span."""
    if cut.past is None or cut.future is None:
        return [positions] if positions else []
    reach, most = cut.past + cut.future, stretch_length(cut, states)
    groups: list[list[int]] = []
    for position in positions:
        if not groups or position - groups[-1][-1] > reach or position - groups[-1][0] + reach > most:
            groups.append([])
        groups[-1].append(position)
    return groups


def _part(transition: Transition, start: int, stop: int) -> Transition:
    time = -3 if isinstance(transition, FullTransition) else -2
    return transition.map(lambda part: part.narrow(time, start, stop - start))
