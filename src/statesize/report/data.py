"""What a report's page carries of its profiles, rounded."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from statesize.report.extent import Extent
from statesize.report.layer_data import layer_data
from statesize.results.charts import show_token
from statesize.results.findings.headline import telling_layer
from statesize.results.names import model_title, short_names
from statesize.results.protocol import Profiled

TOKEN_SIGNS = 60


def page_data(profiles: Sequence[Profiled], metrics: Iterable[str], extent: Extent) -> dict[str, Any]:
    """Everything that the page's scripts draw, as JSON values; profiles of the same tokens share one text."""
    texts: dict[str, Any] = {}
    for profile in profiles:
        texts.setdefault(_text_key(profile), _text(profile, extent))
    return {"texts": texts, "models": [_model(profile, list(metrics), extent) for profile in profiles]}


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
        "telling": {metric: telling_layer(profile, metric) for metric in metrics},
        "layers": [layer_data(profile.mixer(name), name, names[name], metrics, extent) for name in profile.mixers],
    }
