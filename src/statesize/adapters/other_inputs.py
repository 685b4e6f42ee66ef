"""Other inputs: what a tensor is with other numbers from a position on."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from statesize.adapters.observation import random_like


def changed_from(tensor: Tensor, axis: int, cut: int) -> Tensor:
    """A copy with other numbers from a position on: random ones of the tensor's scale, or ids of other positions."""
    moved = tensor.movedim(axis, 0).clone()
    if tensor.is_floating_point():
        moved[cut:] += random_like(moved)[cut:]
    else:
        others = moved.roll(1, 0)[cut:]
        # One repeated token has no other one beside it.
        moved[cut:] = 1 - others.clamp(0, 1) if torch.equal(others, moved[cut:]) else others
    return moved.movedim(0, axis)


def other_futures(length: int) -> list[tuple[int, Callable[[Tensor], Tensor]]]:
    """Cuts, and what makes texts (S, L, …) others from the cut on: what came before, or what exceeds all of it."""
    # Where places are chosen by the data, as by their score, the first frees those of the future, the second takes
    # those of the past.
    cuts = [(within_blocks(length // 2, length), repeats) for repeats in (True, False)]
    return [(cut, partial(_other_future, cut=cut, repeats=repeats)) for cut, repeats in cuts]


def within_blocks(cut: int, length: int) -> int:
    """The next cut that begins no block of 2 to 10 positions, or of a multiple: at a block's border no block leaks."""
    return next((at for at in range(cut, length) if math.gcd(at, 2 * 3 * 5 * 7) == 1), max(1, min(cut, length - 1)))


def _other_future(texts: Tensor, *, cut: int, repeats: bool) -> Tensor:
    moved, generator = texts.movedim(1, 0).clone(), torch.Generator().manual_seed(cut)
    if texts.is_floating_point() and not repeats:
        moved[cut:] += 3 * random_like(moved, cut)[cut:]
    else:
        chosen = torch.randint(cut if repeats else len(moved), (len(moved) - cut,), generator=generator, device="cpu")
        moved[cut:] = moved[chosen.to(moved.device)]
    return moved.movedim(0, 1)
