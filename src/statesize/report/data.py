"""What a report's page carries of its profiles, rounded."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from statesize.drawing.chart import METRICS
from statesize.report.document import resource
from statesize.report.extent import Extent
from statesize.report.layer_data import layer_data
from statesize.results.charts import short_names, show_token
from statesize.results.protocol import Profiled

TOKEN_SIGNS = 60


def page_data(profiles: Sequence[Profiled], extent: Extent) -> dict[str, Any]:
    """Everything that the page's scripts draw, as JSON values; profiles of the same tokens share one text."""
    texts: dict[str, Any] = {}
    for profile in profiles:
        texts.setdefault(_text_key(profile), _text(profile, extent))
    return {
        "metrics": METRICS,
        "measures": _measures(),
        "texts": texts,
        "models": [_model(profile, extent) for profile in profiles],
    }


def clipped(token: str) -> str:
    """The first signs of a token with white space made visible, and how many it has where it is long."""
    start = show_token(token[:TOKEN_SIGNS])
    return start if len(token) <= TOKEN_SIGNS else f"{start}… ({len(token):,} signs)"


def _measures() -> dict[str, str]:
    """What the map can show, with titles: the numbers of its tooltips."""
    hints = json.loads(resource("map.json"))["layer"][0]["encoding"]["tooltip"]
    return {hint["field"]: hint["title"] for hint in hints if hint["type"] == "quantitative"}


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
    layers = [layer_data(profile.mixer(name), name, names[name], extent) for name in profile.mixers]
    return {"name": profile.model, "text": _text_key(profile), "layers": layers}
