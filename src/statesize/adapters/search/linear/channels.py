"""Heads and channels of a layer, found from what it returns for impulses."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import cast

import torch
from torch import Tensor

from statesize.adapters.models.own_cache import grouped_by
from statesize.adapters.search.lone.runs import Precision


@dataclass(frozen=True, eq=False)
class Channels:
    """Which channels of what leaves a layer share one T, and which ones of what enters they come from."""

    target: Tensor  # channels of what leaves, (unit, P), in one sequence
    source: Tensor  # channels of what enters, (unit, P): each channel that leaves reads one that enters

    @property
    def units(self) -> int:
        """Number of T."""
        return len(self.target)

    @property
    def shared(self) -> int:
        """P, the number of channels that share one T."""
        return self.target.shape[1]

    @cached_property
    def _grouped(self) -> tuple[int, tuple[int, ...]]:
        return grouped_by([tuple(row) for row in cast("list[list[int]]", self.source.tolist())])

    def groups(self) -> int:
        """Number of stored inputs that several units read; 0 where every unit has its own."""
        return self._grouped[0] if self._grouped[0] < self.units else 0

    def order(self) -> tuple[int, ...]:
        """Units that read the first of them, then those that read the second …; empty where these are consecutive."""
        return self._grouped[1]

    def shares_unevenly(self) -> bool:
        """Whether some units read the same input and form no groups."""
        return self._grouped[0] > len(cast("Tensor", self.source.unique(dim=0)))

    def by_group(self, by_unit: Tensor, axis: int) -> Tensor:
        """What there is of each unit along a dimension, in the order of what they read."""
        order = self.order()
        return by_unit.index_select(axis, torch.tensor(order, device=by_unit.device)) if order else by_unit


def codes(count: int) -> Tensor:
    """Three amplitudes for each channel that enters, (3, channels): by their ratio a channel is known again."""
    first = torch.ones(count, dtype=torch.float64)
    second = 1 + torch.arange(count, dtype=torch.float64) / count
    third = torch.rand(count, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) + 0.5
    return torch.stack([first, second, third])


def read_channels(responses: Tensor, entering: int, sequences: int, precision: Precision) -> Tensor | None:
    """The channel that enters, for each that leaves and reads it, in one sequence; None where some read several."""
    # responses: What a layer returns for the three codes times one number per position, less what it returns for zeros,
    # (3, L, sequences times channels that leave). entering: Number of channels that enter, times sequences.
    first, second, third = responses.double().cpu().unbind()
    strongest = first.abs().argmax(0, keepdim=True)
    peak, other = (response.gather(0, strongest)[0] for response in (first, second))
    silent = peak.abs() <= precision.rounding * first.abs().max()
    ratio = torch.where(silent, 1.0, other / torch.where(silent, 1.0, peak))
    origin = ((ratio - 1) * entering).round().long()
    if len(origin) % sequences or entering % sequences or bool(((origin < 0) | (origin >= entering)).any()):
        return None
    if entering == len(origin):
        # A channel whose T is zero reads its own.
        origin = torch.where(silent, torch.arange(entering), origin)
    amplitudes, limit = codes(entering), precision.equal * first.abs().max()
    if any(
        bool(((response - first * amplitude[origin]).abs() > limit).any())
        for response, amplitude in ((second, amplitudes[1]), (third, amplitudes[2]))
    ):
        return None
    by_sequence, each = origin.reshape(sequences, -1), entering // sequences
    same = torch.equal(by_sequence // each, torch.arange(sequences)[:, None].expand_as(by_sequence))
    return by_sequence[0] if same and torch.equal(by_sequence % each, by_sequence[:1].expand_as(by_sequence)) else None


def grouped(responses: Tensor, origin: Tensor, precision: Precision) -> Channels:
    """The units of a layer: channels that answer alike where the same random numbers enter all."""
    # responses: T r of every channel that leaves, (numbers, channels), of all sequences.
    # origin: The channel that each of them reads, (channels).
    generator = torch.Generator().manual_seed(0)
    # A few random combinations of the numbers tell channels apart as well as all of them.
    mixture = torch.randn(16, len(responses), dtype=torch.float64, generator=generator) @ responses.double().cpu()
    norm = mixture.square().sum(0).sqrt()
    norm = norm.clamp_min(precision.rounding * float(norm.max()))
    # Differences of products would lose half of the digits.
    distance = torch.cdist(mixture.T, mixture.T, compute_mode="donot_use_mm_for_euclid_dist")
    equal = distance <= precision.equal * torch.maximum(norm, norm[:, None])
    leaders = cast("list[int]", equal.int().argmax(1).tolist())
    clusters = [
        [channel for channel, first in enumerate(leaders) if first == leader] for leader in sorted(set(leaders))
    ]
    shared = math.gcd(*map(len, clusters))
    units = sorted(cluster[start : start + shared] for cluster in clusters for start in range(0, len(cluster), shared))
    target = torch.tensor(units)
    return Channels(target, origin[target])
