"""Heads and channels of a linear map: which channel of its start each one of its end reads, and T of these."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, cast

import torch
from torch import Tensor

from statesize.adapters.models.own_cache import grouped_by
from statesize.adapters.trace.replay import Piece
from statesize.adapters.trace.run import ROUNDING, Place, by_position
from statesize.codes import Code, Note
from statesize.errors import ModelError


@dataclass(frozen=True, eq=False)
class Channels:
    """The units of a map."""

    target: Tensor  # channels of the end, (S, unit, P), as `Piece.by_position` counts them: P of them share one T
    source: Tensor  # the channel of the start that each of them reads, (S, unit, P)

    @cached_property
    def _grouped(self) -> tuple[int, tuple[int, ...]]:
        return grouped_by([tuple(row) for row in cast("list[list[int]]", self.source[0].tolist())])

    @property
    def groups(self) -> int:
        """Number of stored inputs that several units read; 0 where every unit has its own."""
        return self._grouped[0] if self._grouped[0] < self.target.shape[1] else 0

    @property
    def order(self) -> tuple[int, ...]:
        """Units that read the first of them, then those that read the second …; empty where these are consecutive."""
        return self._grouped[1]

    @property
    def shares_unevenly(self) -> bool:
        """Whether some units read the same input and form no groups."""
        return self._grouped[0] > len(cast("Tensor", self.source[0].unique(dim=0)))

    def by_unit(self, matrix: Tensor, channels: Tensor) -> Tensor:
        """Numbers (L, channels) as (S, unit, L, P)."""
        return matrix[:, channels].permute(1, 2, 0, 3)


def _read(piece: Piece, rounding: float) -> tuple[Tensor, Tensor] | None:
    """The channel that each channel of the end reads, and its answers to random numbers; None if some read several."""
    entering, generator = piece.held.shape[1], torch.Generator().manual_seed(0)
    # Three amplitudes for each channel that enters: by their ratio a channel is known again.
    second = 1 + torch.arange(entering, dtype=torch.float64) / entering
    third = torch.rand(entering, dtype=torch.float64, generator=generator) + 0.5
    numbers = torch.randn(len(piece.held), 1, dtype=torch.float64, generator=generator.manual_seed(1))
    given = (numbers * code for code in (torch.ones_like(second), second, third))
    answers = torch.stack([piece.by_position(coded.to(piece.held.dtype)) for coded in given])
    if not bool(answers.isfinite().all()) or not bool((answers := answers - piece.offset).any()):
        return None
    first, *others = answers.double()
    strongest = first.abs().argmax(0, keepdim=True)
    peak, other = first.gather(0, strongest)[0], others[0].gather(0, strongest)[0]
    scale = first.abs().max()
    silent = peak.abs() <= rounding * scale
    ratio = torch.where(silent, 1.0, other / torch.where(silent, 1.0, peak))
    origin = ((ratio - 1) * entering).round().long()
    if bool(((origin < 0) | (origin >= entering)).any()):
        return None
    if entering == len(origin):
        # A channel whose T is 0 reads its own.
        origin = torch.where(silent, torch.arange(entering), origin)
    pairs = zip(others, (second, third), strict=True)
    if any(bool(((answer - first * code[origin]).abs() > rounding * scale).any()) for answer, code in pairs):
        return None
    return origin, answers[0]


def channels(piece: Piece, texts: int, rounding: float, other: Sequence[Tensor] | None = None) -> Channels | None:
    """The units of a map of S texts; None where its end mixes channels or texts."""
    # rounding: Differences below this part of the largest value are rounding. other: The tensors of the run where the
    # last text is another one.
    if (known := _read(piece, rounding)) is None:
        return None
    origin, answer = known

    def by_text(place: Place) -> Iterator[Tensor]:
        """Channels by text, (S, channels), for each dimension on which nothing changes but what is of the last text."""
        values, changed = piece.graph.tape.values[place.tensor], None
        shape = [size for dim, size in enumerate(values.shape) if dim != place.axis]
        index = torch.arange(values.numel() // values.shape[place.axis]).reshape(shape or [1])
        if other is not None:
            changed = by_position(values != other[place.tensor], place.axis).any(0)
        for dim, size in enumerate(index.shape):
            if size % texts == 0:
                found = index.movedim(dim, 0).reshape(texts, -1)
                if changed is None or (bool(changed[found[-1]].any()) and not bool(changed[found[:-1]].any())):
                    yield found

    for starts in by_text(piece.start):
        number = starts.flatten().argsort()
        for ends in by_text(piece.end):
            read = number[origin[ends]]  # (S, channels)
            own = read - torch.arange(texts)[:, None] * starts.shape[1]
            if bool((own == own[:1]).all()) and 0 <= int(own.min()) and int(own.max()) < starts.shape[1]:
                target = _alike(answer[:, ends], rounding)
                return Channels(ends[:, target], origin[ends[:, target]])
    return None


def _alike(answer: Tensor, rounding: float) -> Tensor:
    """Channels that answer alike, (unit, P), of answers (L, S, channels) to the same numbers."""
    by_channel = answer.flatten(0, 1).double()
    generator = torch.Generator().manual_seed(0)
    # A few random combinations of the rows tell channels apart as well as all of them.
    mixture = torch.randn(16, len(by_channel), dtype=torch.float64, generator=generator) @ by_channel
    norm = mixture.square().sum(0).sqrt()
    norm = norm.clamp_min(rounding * float(norm.max()))
    # Differences of products would lose half of the digits.
    apart = torch.cdist(mixture.T, mixture.T, compute_mode="donot_use_mm_for_euclid_dist")
    leaders = cast("list[int]", (apart <= rounding * torch.maximum(norm, norm[:, None])).int().argmax(1).tolist())
    clusters = [[column for column, first in enumerate(leaders) if first == leader] for leader in sorted(set(leaders))]
    shared = math.gcd(*map(len, clusters))
    units = sorted(cluster[at : at + shared] for cluster in clusters for at in range(0, len(cluster), shared))
    return torch.tensor(units)


class Around(NamedTuple):
    """The reach of mixing around T, in positions; 0 where nothing is mixed."""

    before: int
    behind: int
    beside: int


@dataclass(frozen=True, eq=False)
class Softmax:
    """A softmax over positions that a layer computes itself."""

    weights: Tensor  # what it returned, (S, H, L, L)
    largest_score: float  # the largest absolute score of a key that is seen
    keys: Sequence[Tensor]  # what it took products with, (S, K, L, d); none where no such product is seen

    @property
    def window(self) -> int | None:
        """Positions that every query sees, itself included; None where these are no band of less than the text."""
        seen, length = (self.weights > 0).flatten(0, 1), self.weights.shape[-1]
        width = int(seen[:, -1].sum(-1).max())
        band = torch.ones_like(seen[0]).tril().triu(1 - width)
        return width if width < length and bool((seen == band).all()) else None


@dataclass(frozen=True, eq=False)
class TracedMixing:
    """T of a module."""

    piece: Piece  # the operations that T is made of
    channels: Channels  # its units
    around: Around  # how far positions are mixed around T
    factors: Collection[int]  # the other factors of products with its values in which it could begin as well
    dtype: torch.dtype  # that of the run
    # The softmax over the positions whose weights T is made of; None where there is none.
    softmax: Softmax | None = None

    @property
    def in_double(self) -> bool:
        """Whether the module ran in float64."""
        return self.dtype is torch.float64

    @cached_property
    def values(self) -> Tensor:
        """The values that T acts on, (S, unit, L, P)."""
        return self.channels.by_unit(self.piece.held, self.channels.source).double()

    @cached_property
    def mixed(self) -> Tensor:
        """The mixed values, (S, unit, L, P): T values + offset."""
        return self.channels.by_unit(self.piece.ended, self.channels.target).double()

    @cached_property
    def offset(self) -> Tensor:
        """The mixed values where all values are 0, (S, unit, L, P)."""
        return self.channels.by_unit(self.piece.offset, self.channels.target).double()

    @cached_property
    def matrix(self) -> Tensor:
        """T, (S, unit, L, L)."""
        first = self.channels.target[..., 0]
        columns = self.piece.columns(first.flatten())  # (L, L, S units): of each impulse
        T = columns.permute(2, 1, 0).double().contiguous().view(*first.shape, *columns.shape[:2])
        if float(T.triu(1).abs_().amax()) > ROUNDING[self.dtype] * float(T.abs().amax()):
            raise ModelError(Note(Code.LOOKS_AHEAD))
        return T.tril_()

    def forget(self) -> None:
        """Drop T until its next use."""
        vars(self).pop("matrix", None)

    def respond(self, values: Tensor) -> Tensor:
        """Mix other values by the operations of the run."""
        start = self.piece.held.clone()
        start[:, self.channels.source] = values.to(start.dtype).permute(2, 0, 1, 3)
        return self.channels.by_unit(self.piece.by_position(start), self.channels.target)
