"""Other inputs: what a tensor is with other numbers at some positions."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from statesize.adapters.observation import scale

Change = Callable[[Tensor, int | None], Tensor]
"""Makes a tensor that enters another one, by the dimension of its positions."""


def other_text(where: slice, generator: torch.Generator | None = None) -> Change:
    """Other numbers at some positions, or the ids of others."""
    generator = torch.Generator().manual_seed(0) if generator is None else generator

    def change(leaf: Tensor, axis: int | None) -> Tensor:
        if axis is None or leaf.dtype is torch.bool:
            return leaf
        moved = leaf.movedim(axis, 0)
        part = moved[where]
        if leaf.is_floating_point():
            numbers = torch.randn(part.shape, generator=generator, dtype=torch.float64, device="cpu")
            part += 3 * scale(leaf) * numbers.to(part)
        else:
            chosen = moved[torch.randint(len(moved), (len(part),), generator=generator, device="cpu").to(leaf.device)]
            # One repeated token has no other one beside it.
            moved[where] = 1 - chosen.clamp(0, 1) if torch.equal(chosen, part) else chosen
        return leaf

    return change


def within_blocks(cut: int, length: int) -> int:
    """The next cut that begins no block of 2 to 10 positions, or of a multiple: at a block's border no block leaks."""
    return next((at for at in range(cut, length) if math.gcd(at, 2 * 3 * 5 * 7) == 1), max(1, min(cut, length - 1)))
