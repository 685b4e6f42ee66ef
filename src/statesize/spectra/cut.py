"""Which blocks of T are measured: H_i = T[i:, :i], or T[i:i+h, i−w:i] under windows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from statesize.check import refuse, require_count, whole_number
from statesize.errors import InputError

Positions = int | Iterable[int] | Tensor | None


@dataclass(frozen=True)
class Cut:
    """The cut positions of one measurement and how far each block reaches."""

    length: int  # sequence length L
    positions: tuple[int, ...]  # cut positions i, in the caller's order
    past: int | None = None  # columns i − past … i − 1 only; None for all i of them
    future: int | None = None  # rows i … i + future − 1 only; None for all L − i of them
    readouts: int = 1  # rows of T that each position has

    def shape(self, position: int) -> tuple[int, int]:
        """How many rows and how many columns the block at a position has."""
        after = self.length - position if self.future is None else self.future
        return self.readouts * after, position if self.past is None else self.past

    def reach(self, position: int) -> tuple[slice, slice]:
        """The positions whose rows, and the columns, the block at a position has."""
        rows, columns = self.shape(position)
        return slice(position, position + rows // self.readouts), slice(position - columns, position)

    @property
    def limits(self) -> Tensor:
        """min(rows, columns) of each block, (P,) int64: no rank can pass it."""
        return torch.tensor([min(self.shape(position)) for position in self.positions], dtype=torch.int64)

    @property
    def largest_rank(self) -> int:
        """The largest min(rows, columns) over the positions, 0 where there are none."""
        return int(self.limits.max()) if self.positions else 0

    @property
    def windowed(self) -> bool:
        """Whether a block is cut short; windows that reach the ends of the sequence cut nothing off."""
        past = self.past is not None and self.past < max(self.positions, default=0)
        future = self.future is not None and self.future < self.length - min(self.positions, default=self.length)
        return past or future


def make_cut(length: int, positions: Positions = None, past: int | None = None, future: int | None = None) -> Cut:
    """The cut for a length and a choice of positions: None for all, a count of evenly spread ones, or a list."""
    # Under windows, only positions at which the windows fit.
    if length < 2:
        raise InputError(f"operator must have a length of at least 2, a past and a future, got {length}.")
    past = None if past is None else require_count("past", past)
    future = None if future is None else require_count("future", future)
    first = 1 if past is None else past
    last = length - 1 if future is None else length - future
    if first > last:
        raise InputError(f"past and future must fit into the length {length}, got {past} and {future}.")
    listed = isinstance(positions, Iterable) and getattr(positions, "ndim", 1)
    chosen = _listed(positions, first, last) if listed else _spread(positions, first, last)  # pyright: ignore[reportArgumentType]
    return Cut(length, tuple(chosen), past, future)


def _spread(argument: object, first: int, last: int) -> list[int]:
    """The middles of equal parts: each stands for as many positions, so that a mean over them is one over all."""
    available = last - first + 1
    count = available if argument is None else whole_number(argument)
    if count is None or count < 1:
        refuse("positions", "None, a count of at least 1 or a list", argument)
    count = min(count, available)
    return [first + (2 * part + 1) * available // (2 * count) for part in range(count)]


def _listed(positions: Iterable[int] | Tensor, first: int, last: int) -> Iterator[int]:
    for value in positions:
        position = whole_number(value)
        if position is None or not first <= position <= last:
            refuse("positions", f"integers in {first} … {last} here", value)
        yield position
