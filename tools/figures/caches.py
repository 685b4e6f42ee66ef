"""The figures of what the caches of published models may lose."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from statesize.measurement.statistics import mean_interval
from tools.figures.on_record import estimate, table


def published_caches(document: Mapping[str, Any]) -> dict[str, str]:
    """What each way to make the cache smaller costs, that with the least bytes as the best of all, and equal halves."""
    (row,) = document["rows"]
    prices, passkeys = {price["title"]: price for price in row["prices"]}, row["passkeys"]
    best, half = list(prices).index(_BEST), prices["50 % equal"]
    extra = np.array([one["extra"][best] for one in row["measured"]])
    (saved,) = (one for one in row["against_equal"] if one["keep"] == 0.25)
    cells = [
        (
            title,
            f"{price['bytes_share']:.0%}",
            _told(price["nats"], ".4f"),
            _told(price["bits"], ".4f"),
            f"{price['found']} of {passkeys['hidden']}",
        )
        for title, price in prices.items()
    ]
    return {
        "table": table(("cache", "bytes", "extra nats per token", "extra bits per byte", "passkeys found"), cells),
        "documents": str(row["documents"]["held_out"]),
        "hidden": str(passkeys["hidden"]),
        "found": str(passkeys["found"]),
        "minutes": f"{row['seconds'] / 60:.0f}",
        "saved": estimate(-saved["mean"], [-end for end in reversed(saved["interval"])], ".3f"),
        "int4_half": f"{mean_interval(extra, looks=len(prices)):.4f}",
        "half": f"{half['nats']['mean']:.3f}",
        "half_missed": f"{passkeys['found'] - half['found']} of {passkeys['found']}",
    }


def published_caches_gemma(document: Mapping[str, Any]) -> dict[str, str]:
    """The same of Gemma 3, in short: what rounding costs, alone and with half of the tokens."""
    (row,) = document["rows"]
    prices = {price["title"]: price["nats"] for price in row["prices"]}
    return {
        "documents": str(row["documents"]["held_out"]),
        "int4": _told(prices["int4"], ".4f"),
        "int4_half": _told(prices[_BEST], ".4f"),
    }


_BEST = "int4, 50 % by curves"


def _told(found: Mapping[str, Any], form: str) -> str:
    """A mean and its interval."""
    return estimate(found["mean"], found["interval"], form)
