"""The map of layers by heads with what it shows of one head: its data, rounded, within a size that opens at once."""

from __future__ import annotations

import base64
import math
import zlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from statesize.io.text import counted
from statesize.measurement.settings import SINK
from statesize.measurement.statistics import evenly_spread, finite
from statesize.report.charts import show_token
from statesize.report.result_page import PageChart
from statesize.report.table import short_names
from statesize.report.vega import Metric, page_charts
from statesize.report.words import every_token, model_title
from statesize.results.fields import Array
from statesize.results.profiled import Profiled
from statesize.results.summary import (
    at_middle,
    ess_bounds,
    known_mean,
    largest_known,
    unit_dim,
    utilisation_values,
    without_sinks,
)

SCRIPTS = ("packing.js", "positions.js", "map.js", "tolerance.js", "page.js")
STEPS = 65534
"""Parts of the largest number that are distinguished; one more value stands for what is not known."""
# With this a page of 64 layers stays below 2 MB, 0.9 of which are Vega.
POINTS = 60_000
PAGE_HEADS = 64
"""Heads or channels of a layer that a page shows; evenly chosen where there are more."""
TOKEN_SIGNS = 60
FEWEST = 3
"""Relative tolerances that a curve against the tolerance needs."""


class Extent(NamedTuple):
    """How much of the profiles a page draws: the first sequences of each, at one position in `stride`."""

    sequences: int
    stride: int


def head_map(profiles: Sequence[Profiled], metrics: Mapping[Metric, str]) -> PageChart:
    """The map of layers by heads, and below it the text and the charts of the head that is chosen on it."""
    extent = choose_extent(profiles)
    # Profiles of the same tokens share one text.
    keys = [str(profile.tree.attrs["tokens_sha256"]) for profile in profiles]
    data = {
        "metrics": metrics,
        "sink": f"one token {SINK}",
        "texts": {key: _text(profile, extent) for key, profile in zip(keys, profiles, strict=True)},
        "models": [
            {
                "name": model_title(profile),
                # What is said where a text has tokens between the cuts.
                "cuts": every_token(profile),
                "text": key,
                "layers": [
                    {"name": name, "short": short} | layer_data(profile.mixer(name), metrics, extent)
                    for name, short in short_names(profile.mixers).items()
                ],
            }
            for key, profile in zip(keys, profiles, strict=True)
        ],
        "charts": page_charts(),
    }
    return PageChart("Head by head", data, extent_note(profiles, extent), "head_map.html", SCRIPTS)


def choose_extent(profiles: Sequence[Profiled]) -> Extent:
    """As many sequences as fit with every head and position into POINTS, else a part of one."""
    mixers = [profile.mixer(name) for profile in profiles for name in profile.mixers]
    points = max(1, sum(mixer.sizes["position"] * (1 + len(shown_heads(mixer))) for mixer in mixers))
    sequences = max((mixer.sizes["sequence"] for mixer in mixers), default=1)
    return Extent(max(1, min(sequences, POINTS // points)), math.ceil(points / POINTS))


def extent_note(profiles: Sequence[Profiled], extent: Extent) -> str:
    """What of the profiles a page draws; "" where that is all."""
    count = max(int(profile.tokens.sizes["sequence"]) for profile in profiles)
    mixers = [profile.mixer(name) for profile in profiles for name in profile.mixers]
    less = list[str]()
    if extent.sequences < count:
        less.append(f"the first {extent.sequences} of {counted(count, 'sequence')}")
    if extent.stride > 1:
        less.append(f"one position in {extent.stride}")
    if max(mixer.sizes[unit_dim(mixer)] for mixer in mixers) > PAGE_HEADS:
        less.append(f"of more than {PAGE_HEADS} heads or channels {PAGE_HEADS}")
    return f"Drawn: {', '.join(less)}. The table covers all." if less else ""


def shown_heads(mixer: xr.Dataset) -> NDArray[np.int64]:
    """Places of the measured heads or channels that a page shows."""
    return evenly_spread(mixer.sizes[unit_dim(mixer)], PAGE_HEADS)


def _text(profile: Profiled, extent: Extent) -> list[dict[str, Any]]:
    tokens = profile.tokens
    return [
        {
            "tokens": [clipped(str(token)) for token in tokens["tokens"].values[row, :length]],
            "special": np.flatnonzero(tokens["special"].values[row, :length]).tolist(),
        }
        for row, length in enumerate(tokens["length"].values[: extent.sequences].tolist())
    ]


def clipped(token: str) -> str:
    """The first signs of a token with white space made visible, and how many it has where it is long."""
    start = show_token(token[:TOKEN_SIGNS])
    return start if len(token) <= TOKEN_SIGNS else f"{start}… ({len(token):,} signs)"


def layer_data(mixer: xr.Dataset, metrics: Mapping[Metric, str], extent: Extent) -> dict[str, Any]:
    """All that the page's scripts draw of a layer, as JSON values."""
    columns, rows = slice(None, None, extent.stride), slice(None, extent.sequences)
    unit, heads = unit_dim(mixer), shown_heads(mixer)
    bounds: dict[Metric, tuple[Array, Array]] = {metric: ess_bounds(mixer, metric) for metric in metrics}

    def curves(values: Array) -> dict[str, Any]:
        drawn = values[rows, :, columns]
        return {"mean": packed(drawn.mean(1)), "heads": packed(drawn[:, heads])}

    return {
        "heads": [f"{unit} {index}" for index in mixer[unit].values[heads]],
        "positions": mixer["position"].values[columns].tolist(),
        "ceiling": packed(mixer["ceiling"].values[rows, columns]),
        "norm": packed(mixer["norm"].values[rows, :, columns].mean(1)),
        "ess": {metric: curves((lower + upper) / 2) for metric, (lower, upper) in bounds.items()},
        # How far apart the bounds are in whose middle a count lies that is not exact.
        "apart": {metric: curves(upper - lower) for metric, (lower, upper) in bounds.items() if (lower < upper).any()},
        "cells": layer_cells(mixer, heads, bounds),
        "tolerances": layer_tolerances(mixer, heads),
    }


def layer_cells(
    mixer: xr.Dataset, heads: NDArray[np.int64], bounds: Mapping[Metric, tuple[Array, Array]]
) -> dict[str, Any]:
    """The cells of some heads of one layer in the map, at the middle."""

    def means(of_texts: Array) -> list[float | None]:
        # Rounded so finely that a cell and a list that round them to a tenth agree.
        return [finite(round(value, 4)) for value in known_mean(of_texts, 0)[heads].tolist()]

    return {
        # ESS as a share of what each head could carry, unknown unless its size binds.
        "share": {metric: means(at_middle(mixer, utilisation_values(mixer, metric))) for metric in bounds},
        "ess": {metric: means(at_middle(mixer, (low + high) / 2)) for metric, (low, high) in bounds.items()},
        "apart": {metric: means(at_middle(mixer, high - low)) for metric, (low, high) in bounds.items()},
        "unit": unit_dim(mixer),
        # The share of the attention that one token takes, where the layer attends.
        "sink": means(mixer["sink_share"].values),
        # Which heads have a sink in some text, and entropy-ESS without the columns of sinks.
        "led": np.isfinite(mixer["without_sink"].values[:, heads]).any(0).tolist(),
        "sinkless": means(without_sinks(mixer)),
        "tss": finite(largest_known(mixer, "tss")),
    }


def layer_tolerances(mixer: xr.Dataset, heads: NDArray[np.int64]) -> dict[str, Any] | None:
    """Bounds of the counts of some heads at each ratio, over sequences and cuts; None of too few ratios."""
    ratios, places = np.unique(mixer["relative_threshold"].values, return_index=True)
    places, inside = places[ratios > 0], mixer["position"].values >= 1
    if len(places) < FEWEST:
        return None
    counts = (mixer[name].values[..., places][:, :, inside] for name in ("relative_lower", "relative_upper"))
    lower, upper = (known_mean(bound, (0, 2))[heads] for bound in counts)
    return {"ratios": ratios[ratios > 0].tolist(), "means": packed(lower), "apart": packed(upper - lower)}


def packed(values: Array) -> dict[str, Any]:
    """Numbers of at least 0, NaN where one is not known, of any shape, as 16-bit shares of the largest, `top`."""
    # Counts that change slowly take about a twentieth of two bytes each by zlib; packing.js reads them.
    known = np.isfinite(values)
    top = float(np.max(values, where=known, initial=0.0)) or 1.0
    shares = np.where(known, np.round(np.where(known, values, 0.0) / top * STEPS), STEPS + 1)
    return {"top": top, "values": base64.b64encode(zlib.compress(shares.astype("<u2").tobytes(), 9)).decode()}
