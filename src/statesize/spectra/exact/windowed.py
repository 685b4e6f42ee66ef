"""All singular values of the windows T[i:i+h, i−w:i] of a recurrence, O(L n³ log w) (docs/engines.md, "Windows").

Where a side is not cut, its factor is that of all there is. Long sequences are taken a stretch at a time, so that what
is held does not grow with L where both sides are cut.
"""

from __future__ import annotations

import torch

from statesize.operators import Recurrence
from statesize.spectra.bounds import denormal_error
from statesize.spectra.cut import Cut
from statesize.spectra.exact.sliding_window import window_factors
from statesize.spectra.factorisation import singular_values
from statesize.spectra.spectrum import Spectrum


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
    place = torch.tensor(order, dtype=torch.int64, device=device).argsort()
    sigma = torch.cat(values, -2)[..., place, :]
    # A block of fewer rows or columns than states has no further singular values: the others are round-off.
    sigma = sigma.masked_fill(torch.arange(r, device=device) >= limit[:, None], 0)
    return Spectrum(sigma, torch.cat(bounds, -1)[..., place], limit)


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
