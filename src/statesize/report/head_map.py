"""The map of layers by heads with what it shows of one head: its data, rounded, within a size that opens at once."""

from __future__ import annotations

import base64
import math
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any, ClassVar, NamedTuple, TypedDict

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray

from statesize.io.text import counted
from statesize.measurement.settings import SINK
from statesize.measurement.statistics import between, evenly_spread, finite
from statesize.report.chart_tables import Metric
from statesize.report.charts import FEWEST, page_charts, show_token, tolerance_curves
from statesize.report.names import model_title
from statesize.report.result_page import PageChart, filled
from statesize.report.table import short_names
from statesize.report.words import every_token, telling_layer
from statesize.results.fields import Array
from statesize.results.profiled import Profiled
from statesize.results.summary import (
    at_middle,
    ess_bounds,
    ess_values,
    known_mean,
    largest_known,
    unit_dim,
    utilisation_values,
    without_sinks,
)

STEPS = 65534
"""Parts of the largest number that are distinguished; one more value stands for what is not known."""


class Packed(TypedDict):
    """Numbers of at least 0, rounded to `top`, the largest of them, / STEPS.

    Attributes:
        values: Little-endian 16-bit shares of `top` in the order of the array, as zlib's stream in base64: counts that
            change slowly along the last dimension take about a twentieth of two bytes each.
    """

    top: float
    values: str


def packed(values: NDArray[np.float32 | np.float64]) -> Packed:
    """Pack numbers of at least 0, NaN where one is not known, of any shape; packing.js unpacks them."""
    known = np.isfinite(values)
    top = float(np.max(values, where=known, initial=0.0)) or 1.0
    shares = np.where(known, np.round(np.where(known, values, 0.0) / top * STEPS), STEPS + 1)
    return {"top": top, "values": base64.b64encode(zlib.compress(shares.astype("<u2").tobytes(), 9)).decode()}


# With this a page of 64 layers stays below 2 MB, 0.9 of which are Vega.
POINTS = 60_000
EXTREMES = 5
"""Heads that a page names as those with most, and with least ESS."""
PAGE_HEADS = 64
"""Heads or channels of a layer that a page shows one by one; the map puts neighbours together where there are more."""


class Extent(NamedTuple):
    """How much of the profiles a page draws: the first sequences of each, at one position in `stride`."""

    sequences: int
    stride: int


def choose_extent(profiles: Sequence[Profiled]) -> Extent:
    """As many sequences as fit with every head and position into POINTS, else a part of one."""
    mixers = [profile.mixer(name) for profile in profiles for name in profile.mixers]
    points = max(1, sum(mixer.sizes["position"] * (1 + len(shown_heads(mixer))) for mixer in mixers))
    sequences = max((mixer.sizes["sequence"] for mixer in mixers), default=1)
    return Extent(max(1, min(sequences, POINTS // points)), math.ceil(points / POINTS))


def shown_heads(mixer: xr.Dataset) -> NDArray[np.int64]:
    """Places of the measured heads or channels that a page shows one by one."""
    return evenly_spread(mixer.sizes[unit_dim(mixer)], PAGE_HEADS)


def extent_note(profiles: Sequence[Profiled], extent: Extent) -> str:
    """What of the profiles a page draws; "" where that is all."""
    count = max(int(profile.tokens.sizes["sequence"]) for profile in profiles)
    mixers = [profile.mixer(name) for profile in profiles for name in profile.mixers]
    most_heads = max(mixer.sizes[unit_dim(mixer)] for mixer in mixers)
    amounts = {
        f"the first {extent.sequences} of {counted(count, 'sequence')}": extent.sequences < count,
        f"one position in {extent.stride}": extent.stride > 1,
        f"of more than {PAGE_HEADS} heads or channels {PAGE_HEADS} curves, and as many cells, each a mean of "
        "neighbours": most_heads > PAGE_HEADS,
    }
    less = ", ".join(amount for amount, is_less in amounts.items() if is_less)
    return f"Drawn: {less}. The table covers all." if less else ""


def layer_data(mixer: xr.Dataset, name: str, short: str, metrics: Iterable[str], extent: Extent) -> dict[str, Any]:
    """All that the page's scripts draw of a layer, as JSON values."""
    columns, rows = slice(None, None, extent.stride), slice(None, extent.sequences)
    unit, heads = unit_dim(mixer), shown_heads(mixer)
    bounds = {metric: [bound[rows] for bound in ess_bounds(mixer, metric)] for metric in metrics}

    def curves(values: Array) -> dict[str, Packed]:
        return {"mean": packed(values[:, :, columns].mean(1)), "heads": packed(values[:, heads, columns])}

    return {
        "name": name,
        "short": short,
        "heads": [f"{unit} {index}" for index in mixer[unit].values[heads]],
        "positions": mixer["position"].values[columns].tolist(),
        "ceiling": packed(mixer["ceiling"].values[rows, columns]),
        "norm": packed(mixer["norm"].values[rows, :, columns].mean(1)),
        "ess": {metric: curves((lower + upper) / 2) for metric, (lower, upper) in bounds.items()},
        # How far apart the bounds are in whose middle a count lies that is not exact.
        "apart": {metric: curves(upper - lower) for metric, (lower, upper) in bounds.items() if (lower < upper).any()},
        "cells": layer_cells(mixer, metrics),
        "tolerances": layer_tolerances(mixer, heads),
    }


def layer_cells(mixer: xr.Dataset, metrics: Iterable[str]) -> dict[str, Any]:
    """The cells of one layer in the map, at the middle, in the order of the heads; means of neighbours where many."""
    unit, units = unit_dim(mixer), mixer[unit_dim(mixer)].values
    groups = np.array_split(np.arange(len(units)), len(shown_heads(mixer)))

    def means(of_units: Array) -> list[float | None]:
        # Rounded so finely that a cell and a list that round them to a tenth agree.
        return [finite(round(float(np.mean(of_units[group])), 4)) for group in groups]

    return {
        "labels": [_label(unit, units[group]) for group in groups],
        # ESS as a share of what each head could carry, unknown unless its size binds.
        "share": {metric: means(_at_middle(mixer, utilisation_values(mixer, metric))) for metric in metrics},
        "ess": {metric: means(_at_middle(mixer, ess_values(mixer, metric))) for metric in metrics},
        "apart": {metric: means(_at_middle(mixer, _apart(mixer, metric))) for metric in metrics},
        "unit": unit,
        # The share of the attention that one token takes, where the layer attends.
        "sink": means(known_mean(mixer["sink_share"].values, 0)),
        # Which cells have a sink in some text, and entropy-ESS without the columns of sinks.
        "led": [bool(np.isfinite(mixer["without_sink"].values[:, group]).any()) for group in groups],
        "sinkless": means(known_mean(without_sinks(mixer), 0)),
        "tss": means(np.full(len(units), largest_known(mixer, "tss"))),
        # What a number per channel takes in bytes per head, as `state_bytes` counts them.
        "numberBytes": getattr(torch, _number_dtype(mixer)).itemsize * int(mixer.attrs["multiplicity"]),
    }


def _number_dtype(mixer: xr.Dataset) -> str:
    """The dtype of the weights as the model holds them in memory; that of T where it is not known."""
    held = str(mixer.attrs["precision"]).rpartition(" ")[2]
    return held if isinstance(getattr(torch, held, None), torch.dtype) else str(mixer.attrs["dtype"])


def _at_middle(mixer: xr.Dataset, values: Array) -> NDArray[np.float64]:
    """Values (sequence, unit, position) at the middle, the mean over texts, (unit,)."""
    return known_mean(at_middle(mixer, values), 0)


def _apart(mixer: xr.Dataset, metric: str) -> Array:
    lower, upper = ess_bounds(mixer, metric)
    return upper - lower


def extreme_heads(profile: Profiled, metric: str) -> dict[str, list[tuple[int, str, float, str]]]:
    """Layer, name, ESS and its text of the heads with most and least; none twice."""
    heads: list[tuple[int, str, float, str]] = []
    for layer, name in enumerate(profile.mixers):
        mixer = profile.mixer(name)
        means, gaps = (_at_middle(mixer, values) for values in (ess_values(mixer, metric), _apart(mixer, metric)))
        for index, mean, apart in zip(mixer[unit_dim(mixer)].values, means.tolist(), gaps.tolist(), strict=True):
            if math.isfinite(mean):
                text = between(mean - apart / 2, mean + apart / 2, "{:.1f}".format)
                heads.append((layer, f"{unit_dim(mixer)} {index}", mean, text))
    heads.sort(key=lambda head: head[2])
    count = min(EXTREMES, len(heads) // 2)
    return {"most": heads[::-1][:count], "least": heads[:count]}


def _label(unit: str, members: NDArray[np.int64]) -> str:
    if len(members) == 1:
        return f"{unit} {members[0]}"
    return f"mean of {len(members)} {unit}s, {members[0]} to {members[-1]}"


def layer_tolerances(mixer: xr.Dataset, heads: NDArray[np.int64]) -> dict[str, Any] | None:
    """Counts of some heads at each ratio, over sequences and cuts, (head, ratio); None of too few ratios."""
    ratios, lower, upper = tolerance_curves(mixer)
    if len(ratios) < FEWEST:
        return None
    return {"ratios": ratios.tolist(), "means": packed(lower[heads]), "apart": packed((upper - lower)[heads])}


TOKEN_SIGNS = 60


@dataclass(frozen=True)
class HeadMap(PageChart):
    """The map of layers by heads, and below it the text and the charts of the head that is chosen on it.

    Attributes:
        dtype: What a number is stored in.
    """

    dtype: str = ""
    scripts: ClassVar[tuple[str, ...]] = ("packing.js", "positions.js", "map.js", "tolerance.js", "page.js")

    def html(self, key: str) -> str:
        """Where the scripts draw it."""
        return filled("head_map.html", {"key": key, "extent": escape(self.caption), "dtype": escape(self.dtype)})


def head_map(profiles: Sequence[Profiled], metrics: Mapping[Metric, str]) -> HeadMap:
    """The map of profiles, with as many positions as a page has room for."""
    extent = choose_extent(profiles)
    data = map_data(profiles, metrics, extent) | {"charts": page_charts()}
    dtypes = {_number_dtype(profile.mixer(name)) for profile in profiles for name in profile.mixers}
    return HeadMap("Head by head", data, extent_note(profiles, extent), " or ".join(sorted(dtypes)))


def map_data(profiles: Sequence[Profiled], metrics: Mapping[Metric, str], extent: Extent) -> dict[str, Any]:
    """Everything that the scripts draw but the charts, as JSON values; profiles of the same tokens share one text."""
    keys = [str(profile.tree.attrs["tokens_sha256"]) for profile in profiles]
    texts: dict[str, Any] = {}
    for key, profile in zip(keys, profiles, strict=True):
        texts.setdefault(key, _text(profile, extent))
    models = [_model(profile, metrics, extent) | {"text": key} for key, profile in zip(keys, profiles, strict=True)]
    return {"metrics": metrics, "sink": f"one token {SINK}", "texts": texts, "models": models}


def clipped(token: str) -> str:
    """The first signs of a token with white space made visible, and how many it has where it is long."""
    start = show_token(token[:TOKEN_SIGNS])
    return start if len(token) <= TOKEN_SIGNS else f"{start}… ({len(token):,} signs)"


def _text(profile: Profiled, extent: Extent) -> list[dict[str, Any]]:
    tokens = profile.tokens
    return [
        {
            "tokens": [clipped(str(token)) for token in tokens["tokens"].values[row, :length]],
            "special": np.flatnonzero(tokens["special"].values[row, :length]).tolist(),
        }
        for row, length in enumerate(tokens["length"].values[: extent.sequences].tolist())
    ]


def _model(profile: Profiled, metrics: Iterable[str], extent: Extent) -> dict[str, Any]:
    names = short_names(profile.mixers)
    return {
        "name": model_title(profile),
        # What is said where a text has tokens between the cuts.
        "cuts": every_token(profile),
        "extremes": {metric: extreme_heads(profile, metric) for metric in metrics},
        "telling": telling_layer(profile),
        "layers": [layer_data(profile.mixer(name), name, short, metrics, extent) for name, short in names.items()],
    }
