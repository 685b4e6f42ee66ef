"""What a report's page carries of its profiles: rounded, and within a size that opens at once."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from statesize.profiling import Profile
from statesize.profiling.summary import unit_dim
from statesize.report.charts import (
    METRICS,
    ROLE_COLOURS,
    ROLE_COLOURS_ON_DARK,
    head_values,
    json_number,
    short_names,
    show_token,
)

# An absolute tolerance says little without the operator's scale: it stays in the profile.
PAGE_METRICS = ("entropy", "relative_tolerance")
HEAD_POINTS = 200_000
MEAN_POINTS = 40_000


@dataclass(frozen=True)
class Extent:
    """How much of the profiles a page shows.

    Attributes:
        sequences: The first sequences of each profile, up to this many.
        heads: Whether single heads are drawn.
        stride: Every so many positions.
    """

    sequences: int
    heads: bool
    stride: int


def choose_extent(profiles: Sequence[Profile]) -> Extent:
    """As many sequences as fit with every head and position, else one without heads, else with fewer positions.

    Args:
        profiles: What the page shows.

    Returns:
        The extent.
    """
    mixers = [profile.mixer(name) for profile in profiles for name in profile.mixers]
    most = max((mixer.sizes["sequence"] for mixer in mixers), default=1)
    means = max(1, sum(mixer.sizes["position"] for mixer in mixers))
    heads = max(1, sum(mixer.sizes["position"] * mixer.sizes[unit_dim(mixer)] for mixer in mixers))
    fitting = min(HEAD_POINTS // heads, MEAN_POINTS // means)
    if fitting >= 1:
        return Extent(min(most, fitting), heads=True, stride=1)
    return Extent(1, heads=heads <= HEAD_POINTS, stride=-(-means // MEAN_POINTS))


def page_data(profiles: Sequence[Profile], extent: Extent) -> dict[str, Any]:
    """Everything that the page's script draws, as JSON values.

    Args:
        profiles: What the page shows.
        extent: How much of it.

    Returns:
        "metrics", "colours", "texts" by digest (profiles of the same tokens share one), and "models".
    """
    texts: dict[str, Any] = {}
    for profile in profiles:
        texts.setdefault(_text_key(profile), _text(profile, extent))
    return {
        "metrics": METRICS,
        "colours": {"light": list(ROLE_COLOURS.values()), "dark": list(ROLE_COLOURS_ON_DARK.values())},
        "texts": texts,
        "models": [_model(profile, extent) for profile in profiles],
    }


def _text_key(profile: Profile) -> str:
    return str(profile.attributes["tokens_sha256"])


def _text(profile: Profile, extent: Extent) -> list[dict[str, Any]]:
    tokens = profile.tokens
    lengths = [int(length) for length in tokens["length"].values[: extent.sequences]]
    return [
        {
            "tokens": [show_token(str(token)) for token in tokens["tokens"].values[row, :length]],
            "special": np.flatnonzero(tokens["special"].values[row, :length]).tolist(),
        }
        for row, length in enumerate(lengths)
    ]


def _model(profile: Profile, extent: Extent) -> dict[str, Any]:
    names = short_names(profile.mixers)
    layers = [_layer(profile.mixer(name), name, names[name], extent) for name in profile.mixers]
    return {"name": profile.model, "text": _text_key(profile), "layers": layers}


def _layer(mixer: xr.Dataset, name: str, short: str, extent: Extent) -> dict[str, Any]:
    places = slice(None, None, extent.stride)
    rows = slice(None, extent.sequences)
    by_metric = {metric: head_values(mixer, metric)[rows, :, places] for metric in PAGE_METRICS}
    return {
        "name": name,
        "short": short,
        "kind": str(mixer.attrs["kind"]),
        "unit": unit_dim(mixer),
        "units": mixer.sizes[unit_dim(mixer)],
        "positions": mixer["position"].values[places].tolist(),
        "ceiling": _numbers(mixer["ceiling"].values[rows, places]),
        "norm": _numbers(mixer["norm"].values[rows, :, places].mean(1)),
        "ess": {
            metric: _curves(values, extent)
            for metric, values in by_metric.items()
            if metric == "entropy" or np.isfinite(values).any()
        },
    }


def _curves(values: NDArray[np.float32], extent: Extent) -> dict[str, Any]:
    """Means as numbers; single heads, which are only drawn, as bytes: 255 is unknown, 0 … 254 a share of the top."""
    curves: dict[str, Any] = {"mean": _numbers(values.mean(1))}
    if extent.heads:
        top = float(np.nanmax(values, initial=0.0)) or 1.0
        shares = np.where(np.isfinite(values), np.round(values / top * 254), 255)
        curves["top"] = json_number(top)
        curves["heads"] = base64.b64encode(shares.astype(np.uint8).tobytes()).decode()
    return curves


def _numbers(values: NDArray[np.float32]) -> list[list[str | int | float | None]]:
    return [[json_number(value) for value in row] for row in values]
