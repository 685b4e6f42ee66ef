"""How much of its profiles a page carries, within a size that opens at once, and how the page says so."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from statesize.drawing.chart import evenly_spread
from statesize.results.protocol import Profiled
from statesize.results.summary import unit_dim

# With these a page of 64 layers usually stays below 2 MB, 0.9 of which are Vega.
HEAD_POINTS = 80_000
MEAN_POINTS = 30_000
LADDER_POINTS = 1_000_000
MOST_HEADS = 64
"""Heads or channels of a layer that a page shows one by one; the map puts neighbours together where there are more."""


@dataclass(frozen=True)
class Extent:
    """How much of the profiles a page shows."""

    # The first of each profile, up to this many.
    sequences: int
    # Every so many positions, and every so many of those for single heads.
    stride: int
    head_stride: int
    # Positions of a sequence whose singular values are shown, evenly spread.
    places: int


def choose_extent(profiles: Sequence[Profiled], share: float = 1.0) -> Extent:
    """As many sequences as fit with every head and position into a share of the usual points, else a part of one."""
    most_heads, most_means = share * HEAD_POINTS, share * MEAN_POINTS
    mixers = _mixers(profiles)
    most = max((mixer.sizes["sequence"] for mixer in mixers), default=1)
    means = max(1, sum(mixer.sizes["position"] for mixer in mixers))
    heads = max(1, sum(mixer.sizes["position"] * len(shown_heads(mixer)) for mixer in mixers))
    fitting = int(min(most_heads // heads, most_means // means))
    sequences = max(1, min(most, fitting))
    counts = sum(len(shown_heads(mixer)) * mixer.sizes["relative_threshold"] for mixer in mixers)
    places = max(1, int(share * LADDER_POINTS) // max(1, sequences * counts))
    if fitting >= 1:
        return Extent(sequences, stride=1, head_stride=1, places=places)
    stride = math.ceil(means / most_means)
    return Extent(1, stride, head_stride=math.ceil(heads / (stride * most_heads)), places=places)


def shown_heads(mixer: xr.Dataset) -> NDArray[np.int64]:
    """Places of the measured heads or channels that a page shows one by one."""
    return evenly_spread(mixer.sizes[unit_dim(mixer)], MOST_HEADS)


def curves_note(profiles: Sequence[Profiled], extent: Extent) -> str:
    """What of the curves a page lacks."""
    count = max(int(profile.tokens.sizes["sequence"]) for profile in profiles)
    notes: list[str] = []
    if extent.sequences < count:
        first = "first" if extent.sequences == 1 else f"first {extent.sequences}"
        notes.append(f"The charts show the {first} of {count} sequences; the table covers all.")
    if extent.stride > 1:
        notes.append(f"One position in {extent.stride} is drawn.")
    if extent.head_stride > 1:
        notes.append(f"Single heads are drawn at one position in {extent.stride * extent.head_stride}.")
    if _many_heads(profiles):
        notes.append(f"Single curves show at most {MOST_HEADS} heads or channels of a layer.")
    return " ".join(notes)


def spectra_note(profiles: Sequence[Profiled], extent: Extent) -> str:
    """What of the singular values a page lacks."""
    positions = max(mixer.sizes["position"] for mixer in _mixers(profiles))
    if extent.places >= positions - 1:
        return ""
    return f"The page holds {extent.places} positions of each sequence; the one nearest to your choice is shown."


def map_note(profiles: Sequence[Profiled]) -> str:
    """What of the single heads the map lacks."""
    if not _many_heads(profiles):
        return ""
    return (
        f"A layer with more than {MOST_HEADS} measured heads or channels is drawn as {MOST_HEADS} cells, each their "
        "mean."
    )


def _many_heads(profiles: Sequence[Profiled]) -> bool:
    return any(mixer.sizes[unit_dim(mixer)] > MOST_HEADS for mixer in _mixers(profiles))


def _mixers(profiles: Sequence[Profiled]) -> list[xr.Dataset]:
    return [profile.mixer(name) for profile in profiles for name in profile.mixers]
