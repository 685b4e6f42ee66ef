"""What a report's page carries of its profiles: rounded, and within a size that opens at once."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from statesize.drawing.curves import METRICS, evenly_spread
from statesize.report.charts import (
    ROLE_COLOURS,
    ROLE_COLOURS_ON_DARK,
    short_names,
    show_token,
)
from statesize.report.head_map import COLUMNS, MEASURES, layer_cells
from statesize.report.ladder import layer_ladder
from statesize.report.packing import packed
from statesize.results.protocol import Profiled
from statesize.results.summary import ess_values, unit_dim

# An absolute tolerance says little without the operator's scale: it stays in the profile.
PAGE_METRICS = ("entropy", "relative_tolerance")
# With these a page of 64 layers usually stays below 2 MB, 0.9 of which are Vega.
HEAD_POINTS = 80_000
MEAN_POINTS = 30_000
LADDER_POINTS = 1_000_000
TOKEN_SIGNS = 60


@dataclass(frozen=True)
class Extent:
    """How much of the profiles a page shows.

    Attributes:
        sequences: The first sequences of each profile, up to this many.
        stride: Every so many positions.
        head_stride: Every so many of those for single heads.
        places: Positions of a sequence whose singular values are shown, evenly spread.
    """

    sequences: int
    stride: int
    head_stride: int
    places: int


def choose_extent(profiles: Sequence[Profiled], share: float = 1.0) -> Extent:
    """As many sequences as fit with every head and position, else one with fewer positions.

    Args:
        profiles: What the page shows.
        share: How much of the points that usually fit.

    Returns:
        The extent.
    """
    most_heads, most_means = share * HEAD_POINTS, share * MEAN_POINTS
    mixers = [profile.mixer(name) for profile in profiles for name in profile.mixers]
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
    """Which of the measured heads or channels a page shows one by one.

    Args:
        mixer: A mixer's dataset.

    Returns:
        Their places; evenly spread where there are too many.
    """
    return evenly_spread(mixer.sizes[unit_dim(mixer)], COLUMNS)


def page_data(profiles: Sequence[Profiled], extent: Extent) -> dict[str, Any]:
    """Everything that the page's script draws, as JSON values.

    Args:
        profiles: What the page shows.
        extent: How much of it.

    Returns:
        "metrics", "measures", "shares", "colours", "texts" by digest (profiles of the same tokens share one), and
        "models".
    """
    texts: dict[str, Any] = {}
    for profile in profiles:
        texts.setdefault(_text_key(profile), _text(profile, extent))
    return {
        "metrics": METRICS,
        "measures": MEASURES,
        "shares": _shares(profiles),
        "colours": {"light": list(ROLE_COLOURS.values()), "dark": list(ROLE_COLOURS_ON_DARK.values())},
        "texts": texts,
        "models": [_model(profile, extent) for profile in profiles],
    }


def clipped(token: str) -> str:
    """A token as the page shows it.

    Args:
        token: Any text.

    Returns:
        Its first signs with white space made visible, and how many it has where it is long.

    Example:
        >>> clipped("a" * 1000)[-15:]
        '… (1,000 signs)'
    """
    start = show_token(token[:TOKEN_SIGNS])
    return start if len(token) <= TOKEN_SIGNS else f"{start}… ({len(token):,} signs)"


def _shares(profiles: Sequence[Profiled]) -> list[tuple[str, str]]:
    # That of the diagnosis first.
    entropy = ("utilisation", "entropy-ESS")
    if not all(profile.attributes["relative_tolerances"] for profile in profiles):
        return [entropy]
    rho = profiles[0].attributes["relative_tolerances"][0]
    return [("relative_utilisation", f"relative tolerance-ESS, ρ = {rho:g}"), entropy]


def _text_key(profile: Profiled) -> str:
    return str(profile.attributes["tokens_sha256"])


def _text(profile: Profiled, extent: Extent) -> list[dict[str, Any]]:
    tokens = profile.tokens
    lengths = [int(length) for length in tokens["length"].values[: extent.sequences]]
    return [
        {
            "tokens": [clipped(str(token)) for token in tokens["tokens"].values[row, :length]],
            "special": np.flatnonzero(tokens["special"].values[row, :length]).tolist(),
        }
        for row, length in enumerate(lengths)
    ]


def _model(profile: Profiled, extent: Extent) -> dict[str, Any]:
    names = short_names(profile.mixers)
    layers = [_layer(profile.mixer(name), name, names[name], extent) for name in profile.mixers]
    return {"name": profile.model, "text": _text_key(profile), "layers": layers}


def _layer(mixer: xr.Dataset, name: str, short: str, extent: Extent) -> dict[str, Any]:
    places = slice(None, None, extent.stride)
    head_places = slice(None, None, extent.stride * extent.head_stride)
    rows = slice(None, extent.sequences)
    unit, heads = unit_dim(mixer), shown_heads(mixer)
    ess = {metric: ess_values(mixer, metric)[rows] for metric in PAGE_METRICS}
    return {
        "name": name,
        "short": short,
        "heads": [f"{unit} {index}" for index in mixer[unit].values[heads]],
        "positions": mixer["position"].values[places].tolist(),
        "headStride": extent.head_stride,
        "ceiling": packed(mixer["ceiling"].values[rows, places]),
        "norm": packed(mixer["norm"].values[rows, :, places].mean(1)),
        "ess": {
            metric: {"mean": packed(values[:, :, places].mean(1)), "heads": packed(values[:, heads, head_places])}
            for metric, values in ess.items()
            if metric == "entropy" or np.isfinite(values).any()
        },
        "cells": layer_cells(mixer),
        "ladder": layer_ladder(mixer, heads, extent.sequences, extent.places),
    }
