"""The map of layers by heads with what it shows of one head: its data, rounded, within a size that opens at once."""

from __future__ import annotations

import base64
import math
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from html import escape
from typing import Any, ClassVar, NamedTuple, TypedDict

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from statesize.io.text import counted
from statesize.measurement.settings import SINK
from statesize.measurement.statistics import between, evenly_spread, finite
from statesize.report.chart_tables import Metric
from statesize.report.charts import FEWEST, page_charts, show_token, tolerance_counts
from statesize.report.document import embedded_json, filled
from statesize.report.names import model_title
from statesize.report.table import short_names
from statesize.report.words import every_token, telling_layer
from statesize.results.fields import BYTES, Array
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


# With this a page of 64 layers usually stays below 2 MB, 0.9 of which are Vega.
POINTS = 80_000
MOST_BYTES = 700_000
"""Largest size of the map's data; a page without any takes 1 MB."""
_SHARES = (1.0, 0.5, 0.25, 0.1)
EXTREMES = 5
"""Heads that a page names as those with most, and with least ESS."""
PAGE_HEADS = 64
"""Heads or channels of a layer that a page shows one by one; the map puts neighbours together where there are more."""


class Extent(NamedTuple):
    """How much of the profiles a page draws: the first sequences of each, at one position in `stride`."""

    sequences: int
    stride: int


def choose_extent(profiles: Sequence[Profiled], share: float = 1.0) -> Extent:
    """As many sequences as fit with every head and position into a share of POINTS, else a part of one."""
    mixers, most = _mixers(profiles), share * POINTS
    points = max(1, sum(mixer.sizes["position"] * (1 + len(shown_heads(mixer))) for mixer in mixers))
    sequences = max((mixer.sizes["sequence"] for mixer in mixers), default=1)
    return Extent(max(1, min(sequences, int(most // points))), math.ceil(points / most))


def shown_heads(mixer: xr.Dataset) -> NDArray[np.int64]:
    """Places of the measured heads or channels that a page shows one by one."""
    return evenly_spread(mixer.sizes[unit_dim(mixer)], PAGE_HEADS)


def extent_note(profiles: Sequence[Profiled], extent: Extent) -> str:
    """What of the profiles a page draws; "" where that is all."""
    count = max(int(profile.tokens.sizes["sequence"]) for profile in profiles)
    most_heads = max(mixer.sizes[unit_dim(mixer)] for mixer in _mixers(profiles))
    parts = {
        f"the first {extent.sequences} of {counted(count, 'sequence')}": extent.sequences < count,
        f"one position in {extent.stride}": extent.stride > 1,
        f"of more than {PAGE_HEADS} heads or channels {PAGE_HEADS} curves, and as many cells, each a mean of "
        "neighbours": most_heads > PAGE_HEADS,
    }
    drawn = ", ".join(part for part, is_less in parts.items() if is_less)
    return f"Drawn: {drawn}. The table covers all." if drawn else ""


def _mixers(profiles: Sequence[Profiled]) -> list[xr.Dataset]:
    return [profile.mixer(name) for profile in profiles for name in profile.mixers]


def layer_data(mixer: xr.Dataset, name: str, short: str, metrics: Iterable[str], extent: Extent) -> dict[str, Any]:
    """All that the page's scripts draw of a layer, as JSON values."""
    columns = slice(None, None, extent.stride)
    rows = slice(None, extent.sequences)
    unit, heads = unit_dim(mixer), shown_heads(mixer)
    bounds = {metric: [bound[rows] for bound in ess_bounds(mixer, metric)] for metric in metrics}
    ess = {metric: (lower + upper) / 2 for metric, (lower, upper) in bounds.items()}
    apart = {metric: upper - lower for metric, (lower, upper) in bounds.items() if (lower < upper).any()}

    def curves(values: Array) -> dict[str, Packed]:
        return {"mean": packed(values[:, :, columns].mean(1)), "heads": packed(values[:, heads, columns])}

    return {
        "name": name,
        "short": short,
        "heads": [f"{unit} {index}" for index in mixer[unit].values[heads]],
        "positions": mixer["position"].values[columns].tolist(),
        "ceiling": packed(mixer["ceiling"].values[rows, columns]),
        "norm": packed(mixer["norm"].values[rows, :, columns].mean(1)),
        "ess": {metric: curves(values) for metric, values in ess.items()},
        # How far apart the bounds are in whose middle a count lies that is not exact.
        "apart": {metric: curves(values) for metric, values in apart.items()},
        "cells": layer_cells(mixer, ess),
        "tolerances": layer_tolerances(mixer, heads),
    }


def layer_cells(mixer: xr.Dataset, metrics: Iterable[str]) -> dict[str, Any]:
    """The cells of one layer in the map, at the middle, in the order of the heads; means of neighbours where many."""
    units = mixer[unit_dim(mixer)].values
    groups = np.array_split(np.arange(len(units)), len(shown_heads(mixer)))

    def means(of_units: Array) -> list[float | None]:
        # Rounded so finely that a cell and a list that round them to a tenth agree.
        return [finite(round(float(np.mean(of_units[group])), 4)) for group in groups]

    def grouped(values: Array) -> list[float | None]:
        return means(known_mean(at_middle(mixer, values), 0))

    return {
        "labels": [_label(unit_dim(mixer), units[group]) for group in groups],
        "share": {metric: means(known_mean(_share(mixer, metric), 0)) for metric in metrics},
        "ess": {metric: grouped(ess_values(mixer, metric)) for metric in metrics},
        "apart": {metric: grouped(_apart(mixer, metric)) for metric in metrics},
        "unit": unit_dim(mixer),
        # The share of the attention that one token takes, where the layer attends.
        "sink": means(known_mean(mixer["sink_share"].values, 0)),
        # Which cells have a sink in some text, and entropy-ESS without the columns of sinks.
        "led": [bool(np.isfinite(mixer["without_sink"].values[:, group]).any()) for group in groups],
        "sinkless": means(known_mean(without_sinks(mixer), 0)),
        "tss": means(np.full(len(units), largest_known(mixer, "tss"))),
        # What a number per channel takes in bytes per head, as `state_bytes` counts them.
        "numberBytes": BYTES[_number_dtype(mixer)] * int(mixer.attrs["multiplicity"]),
    }


def _number_dtype(mixer: xr.Dataset) -> str:
    """The dtype of the weights as the model holds them in memory; that of T where it is not known."""
    held = str(mixer.attrs["precision"]).rpartition(" ")[2]
    return held if held in BYTES else str(mixer.attrs["dtype"])


def _share(mixer: xr.Dataset, metric: str) -> Array:
    """ESS as a share of what each head could carry, (sequence, unit); NaN unless its size binds."""
    return at_middle(mixer, utilisation_values(mixer, metric))


def _apart(mixer: xr.Dataset, metric: str) -> Array:
    lower, upper = ess_bounds(mixer, metric)
    return upper - lower


def extreme_heads(profile: Profiled, metric: str) -> dict[str, list[tuple[int, str, float, str]]]:
    """Layer, name, ESS and its text of the heads with most and least; none twice."""
    found: list[tuple[int, str, float, str]] = []
    for layer, name in enumerate(profile.mixers):
        mixer = profile.mixer(name)
        means = known_mean(at_middle(mixer, ess_values(mixer, metric)), 0).tolist()
        gaps = known_mean(at_middle(mixer, _apart(mixer, metric)), 0).tolist()
        for index, mean, apart in zip(mixer[unit_dim(mixer)].values, means, gaps, strict=True):
            if math.isfinite(mean):
                text = between(mean - apart / 2, mean + apart / 2, "{:.1f}".format)
                found.append((layer, f"{unit_dim(mixer)} {index}", mean, text))
    found.sort(key=lambda head: head[2])
    count = min(EXTREMES, len(found) // 2)
    return {"most": found[::-1][:count], "least": found[:count]}


def _label(unit: str, members: NDArray[np.int64]) -> str:
    if len(members) == 1:
        return f"{unit} {members[0]}"
    return f"mean of {len(members)} {unit}s, {members[0]} to {members[-1]}"


def layer_tolerances(mixer: xr.Dataset, heads: NDArray[np.int64]) -> dict[str, Any] | None:
    """Counts of some heads at each ratio, over sequences and cuts, (head, ratio); None of too few ratios."""
    ratios, lower, upper = tolerance_counts(mixer)
    if len(ratios) < FEWEST:
        return None

    def means(counts: Array) -> Packed:
        return packed(known_mean(counts[:, heads][:, :, mixer["position"].values >= 1], (0, 2)))

    return {"ratios": ratios.tolist(), "means": means(lower), "apart": means(upper - lower)}


TOKEN_SIGNS = 60


@dataclass(frozen=True)
class HeadMap:
    """The map of layers by heads, and below it the text and the charts of the head that is chosen on it."""

    profiles: Sequence[Profiled]
    metrics: Mapping[Metric, str]
    extent: Extent
    title: str = "Head by head"
    scripts: ClassVar[tuple[str, ...]] = ("packing.js", "positions.js", "map.js", "tolerance.js", "page.js")

    @cached_property
    def data(self) -> dict[str, Any]:
        """Everything that the scripts draw, as JSON values; profiles of the same tokens share one text."""
        texts: dict[str, Any] = {}
        for profile in self.profiles:
            texts.setdefault(_text_key(profile), _text(profile, self.extent))
        models = [_model(profile, list(self.metrics), self.extent) for profile in self.profiles]
        said = {"metrics": self.metrics, "sink": f"one token {SINK}"}
        return said | {"charts": page_charts(), "texts": texts, "models": models}

    def html(self, key: str) -> str:
        """Where they draw it."""
        dtypes = " or ".join(sorted({*map(_number_dtype, _mixers(self.profiles))}))
        note = escape(extent_note(self.profiles, self.extent))
        return filled("head_map.html", {"key": key, "extent": note, "dtype": escape(dtypes)})


def fitting_map(profiles: Sequence[Profiled], metrics: Mapping[Metric, str]) -> HeadMap:
    """The map with as many positions as MOST_BYTES have room for."""
    *larger, smallest = (HeadMap(profiles, metrics, choose_extent(profiles, share)) for share in _SHARES)
    return next((heads for heads in larger if len(embedded_json(heads.data).encode()) <= MOST_BYTES), smallest)


def clipped(token: str) -> str:
    """The first signs of a token with white space made visible, and how many it has where it is long."""
    start = show_token(token[:TOKEN_SIGNS])
    return start if len(token) <= TOKEN_SIGNS else f"{start}… ({len(token):,} signs)"


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


def _model(profile: Profiled, metrics: Sequence[str], extent: Extent) -> dict[str, Any]:
    names = short_names(profile.mixers)
    return {
        "name": model_title(profile),
        "text": _text_key(profile),
        # What is said where a text has tokens between the cuts.
        "cuts": every_token(profile),
        "extremes": {metric: extreme_heads(profile, metric) for metric in metrics},
        "telling": telling_layer(profile),
        "layers": [layer_data(profile.mixer(name), name, names[name], metrics, extent) for name in profile.mixers],
    }
