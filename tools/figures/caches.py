"""The figures of what the caches of published models may lose."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from statesize.measurement.statistics import mean_interval
from tools.figures.on_record import estimate, table


def published_caches(document: Mapping[str, Any]) -> dict[str, str]:
    """What each way to make the cache smaller costs, that with the least bytes as the best of all, and equal halves."""
    (row,) = document["rows"]
    titles = [price["title"] for price in row["prices"]]
    best, half = map(titles.index, ("int4, 50 % by curves", "50 % equal"))
    extra = np.array([one["extra"][best] for one in row["measured"]])
    found = row["passkeys"]["found"]
    return _caches(document) | {
        "int4_half": f"{mean_interval(extra, looks=len(titles)):.4f}",
        "half": f"{row['prices'][half]['nats']['mean']:.3f}",
        "half_missed": f"{found - row['prices'][half]['found']} of {found}",
    }


def _caches(document: Mapping[str, Any], left_out: Collection[str] = ()) -> dict[str, str]:
    """What each way to make the cache smaller costs, but for those that are left out of the table."""
    (row,) = document["rows"]
    hidden = row["passkeys"]["hidden"]
    (saved,) = (one for one in row["against_equal"] if one["keep"] == 0.25)
    rows = [
        (
            price["title"],
            f"{price['bytes_share']:.0%}",
            _told(price["nats"], ".4f"),
            _told(price["bits"], ".4f"),
            f"{price['found']} of {hidden}",
        )
        for price in row["prices"]
        if price["title"] not in left_out
    ]
    (half,) = (price["nats"] for price in row["prices"] if price["title"] == "int4, 50 % by curves")
    head = ("cache", "bytes", "extra nats per token", "extra bits per byte", "passkeys found")
    targets = [
        (name, _aim(target), _VERDICTS[document["verdicts"][name]]) for name, target in document["targets"].items()
    ]
    return {
        "table": table(head, rows),
        "targets": table(("target", "fixed before", "verdict"), targets),
        "documents": str(row["documents"]["held_out"]),
        "hidden": str(hidden),
        "found": str(row["passkeys"]["found"]),
        "minutes": f"{row['seconds'] / 60:.0f}",
        "int4_half": _told(half, ".4f"),
        "saved": estimate(-saved["mean"], [-end for end in reversed(saved["interval"])], ".3f"),
    }


def published_caches_gemma(document: Mapping[str, Any]) -> dict[str, str]:
    """The same of Gemma 3, and what curves lose more than equal budgets at an eighth."""
    (more,) = (one for one in document["rows"][0]["against_equal"] if one["keep"] == 0.125)
    kept = {name: text for name, text in _caches(document, _LEFT_OUT).items() if name not in ("minutes", "targets")}
    return kept | {"more_12": _told(more, ".3f")}


# A layer of Gemma has one cache, so that budgets by layer are those by curves.
_LEFT_OUT = (
    *(f"{share} % by layer" for share in ("50", "25", "12.5")),
    *(f"{share} % {way}" for share in ("25", "12.5") for way in ("equal", "by curves")),
    *("int4, 25 % by curves", "int4, 12.5 % equal"),
)


def _told(found: Mapping[str, Any], form: str = ".3f") -> str:
    """A mean and its interval."""
    return estimate(found["mean"], found["interval"], form)


_VERDICTS = {True: "met", False: "missed", None: "cannot tell"}


def _aim(target: Mapping[str, float]) -> str:
    """A target's number, at a share of the tokens."""
    (kind, value) = next((kind, value) for kind, value in target.items() if kind != "keep")
    shown = f"{value:g} {kind.replace('nats', 'nats per token')}" if "nats" in kind else f"{value:.0%} {kind}"
    return f"{shown}, at {100 * target['keep']:.4g} % of the tokens"
