"""Other inputs: what a tensor is with other numbers at some positions, or from a position on."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from statesize.adapters.models.model_state import position_axis

DRAWS = 3
"""Draws of each other future for a module of one's own, which may choose positions by what lies in a block of them."""


def can_be_others(arguments: object, length: int) -> Callable[[Tensor], bool]:
    """Which arguments may be other ones: neither ids of positions nor maps of them, such as masks, beside real ones."""
    leaves = [leaf for leaf in tree_leaves(arguments) if isinstance(leaf, Tensor) and leaf.is_floating_point()]
    real = [leaf.shape for leaf in leaves if position_axis(leaf, length) is not None]
    # Hidden states of one text have that shape too where they have as many channels as positions.
    beside = any(shape != (length, length) for shape in real)

    def changes(tensor: Tensor) -> bool:
        return not (beside and tensor.shape == (length, length)) if tensor.is_floating_point() else not real

    return changes


Positions = int | slice | Tensor
"""One position, some that follow each other, or a mask of some."""


def earlier_halves(length: int) -> list[Tensor]:
    """Masks of half of the positions, of which one holds the earlier position of any pair and not the later one."""
    # The highest bit in which two indices differ is 0 in the earlier one.
    return [torch.arange(length, device="cpu") >> bit & 1 == 0 for bit in range((length - 1).bit_length())]


def in_each(mask: Tensor, size: int) -> Tensor:
    """A mask of the positions of a sequence for so many, as of sequences that stand one behind the other."""
    return mask[torch.arange(size, device=mask.device) % len(mask)]


def changed_input(tensor: Tensor, length: int, position: Positions) -> Tensor:
    """An argument with other numbers at some positions, if it has positions."""
    axis = None if tensor.dtype == torch.bool else position_axis(tensor, length)
    return tensor if axis is None else changed_at(tensor, axis, position)


def text_axis(tensor: Tensor, length: int, sequences: int) -> int | None:
    """The dimension of several texts in an argument; None where it holds no positions of so many."""
    axis = position_axis(tensor, length)
    across = 0 if axis else 1
    return across if axis is not None and tensor.ndim > 1 and tensor.shape[across] == sequences else None


def changed_text(tensor: Tensor, length: int, sequences: int) -> Tensor:
    """An argument with other numbers in the last of several texts, if it holds them."""
    across = None if tensor.dtype == torch.bool else text_axis(tensor, length, sequences)
    if across is None:
        return tensor
    changed = tensor.movedim(across, 0).clone()
    changed[-1] = 0.7 - changed[-1] if tensor.is_floating_point() else changed[-1].roll(1)
    return changed.movedim(0, across)


def other_futures(length: int, rounds: int = 1) -> list[tuple[int, Callable[[Tensor], Tensor]]]:
    """Cuts, and what makes an argument another one from the cut on: what came before, or what exceeds all of it."""
    # rounds: Draws of each. Four futures miss what depends on few tokens, such as the places of the highest scores.
    # Where places are chosen by the data, as by their score, the first frees those of the future, the second takes
    # those of the past.
    parts = (2, True), (2, False), (1, False), (3, True)
    return [
        (cut, partial(_other_future, length=length, cut=cut, repeats=repeats, seed=cut + length * number))
        for number in range(rounds)
        for cut, repeats in dict.fromkeys(
            (within_blocks((part * rounds + number) * length // (4 * rounds), length), r) for part, r in parts
        )
    ]


def within_blocks(cut: int, length: int) -> int:
    """The next cut that begins no block of 2 to 10 positions, or of a multiple: at a block's border no block leaks."""
    return next((at for at in range(cut, length) if math.gcd(at, 2 * 3 * 5 * 7) == 1), max(1, min(cut, length - 1)))


def _other_future(tensor: Tensor, *, length: int, cut: int, repeats: bool, seed: int) -> Tensor:
    axis = None if tensor.dtype == torch.bool else position_axis(tensor, length)
    # A map of positions by positions, such as a mask, has no past of its own.
    if axis is None or tensor.shape == (length, length):
        return tensor
    moved, generator = tensor.movedim(axis, 0).clone(), torch.Generator().manual_seed(seed)
    if tensor.is_floating_point() and not repeats:
        noise = torch.randn(moved[cut:].shape, generator=generator, device="cpu").to(moved)
        moved[cut:] += 3 * noise * moved[moved.isfinite()].double().std().to(moved.dtype)
    else:
        chosen = torch.randint(cut if repeats else length, (length - cut,), generator=generator, device="cpu")
        moved[cut:] = moved[chosen.to(moved.device)]
    return moved.movedim(0, axis)


def changed_at(tensor: Tensor, axis: int, position: Positions) -> Tensor:
    """A copy with other numbers at some positions: random ones of the tensor's scale, or ids of other positions."""
    moved = tensor.movedim(axis, 0).clone()
    position = in_each(position, len(moved)) if isinstance(position, Tensor) else position
    if tensor.is_floating_point():
        generator = torch.Generator().manual_seed(0)
        noise = torch.randn(moved[position].shape, generator=generator, device="cpu").to(moved)
        finite = moved[moved.isfinite()].double()
        # What is equal everywhere has no scale of its own, nor has a single number.
        moved[position] += noise * ((len(finite) > 1 and float(finite.std())) or 1.0)
    elif not isinstance(position, int):
        others = moved.roll(1, 0)[position]
        # One repeated token has no other one beside it.
        moved[position] = 1 - others.clamp(0, 1) if torch.equal(others, moved[position]) else others
    else:
        others = (moved != moved[position]).flatten(1).any(1).nonzero().flatten()
        moved[position] = moved[others[0]] if len(others) else 1 - moved[position].clamp(0, 1)
    return moved.movedim(0, axis)


def narrowed(acts: Callable[[Tensor], bool], changed: Tensor) -> int:
    """One of the positions of a mask that acts on others."""
    places = changed.nonzero().flatten()
    while len(places) > 1:
        first = places[: len(places) // 2]
        one = torch.zeros_like(changed).index_fill(0, first, value=True)
        places = first if acts(one) else places[len(first) :]
    return int(places)
