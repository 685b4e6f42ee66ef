"""The figures of what was found on published models."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import fmean
from typing import Any

import numpy as np

from statesize.measurement.statistics import mean_interval
from tools.figures.on_record import VERDICTS, estimate, table

_HEADS = {
    "ess": "entropy-ESS",
    "ess within layers": "entropy-ESS, within layers",
    "attention_entropy": "entropy of the attention",
    "weighted_ess": "entropy-ESS weighted by values",
    "ess_without_sink": "entropy-ESS without the sink",
    "joint_ess": "joint entropy-ESS of its cache",
    "norm": "norm",
    "sink_share": "share of the sink",
    "layer": "layer",
    "ess, of the loss": "entropy-ESS, with the loss in place of KL",
}
_FALLS = {
    "share": "share of later attention that the delimiter takes",
    "entropy/all": "fall of entropy-ESS",
    "entropy/delimiter": "without the delimiter's column",
    "entropy/first": "without the first token's",
    "entropy/both": "without both",
    "norm/first": "fall of the norm, without the first token's column",
    "norm/both": "without both",
    "count_0.01/both": "fall of the count at τ = 0.01, without both",
    "count_0.1/both": "at τ = 0.1",
    "count_0.3/both": "at τ = 0.3",
}
_SMOLLM2, _GEMMA = "SmolLM2", "gemma"


def published_heads(document: Mapping[str, Any]) -> dict[str, str]:
    """Rank correlations, over heads, with what zeroing the past of a head does to the predictions."""
    looks = {look["name"]: look for look in document["looks"]} | document["others"]

    def shown(name: str) -> str:
        return estimate(looks[name]["value"], looks[name]["interval"], ".2f")

    rows = [(words, shown(f"{_SMOLLM2} {name}"), shown(f"{_GEMMA} {name}")) for name, words in _HEADS.items()]
    counts = (f"{row['heads']} heads of {name}" for row, name in zip(document["rows"], _MODELS, strict=True))
    return {
        "table": table(("rank correlation with KL", *_MODELS), rows),
        "heads": " and ".join(counts),
        "documents": str(len(document["rows"][0]["documents"])),
    }


_MODELS = ("SmolLM2-135M", "Gemma 3 270M")


def published_delimiters(document: Mapping[str, Any]) -> dict[str, str]:
    """Shares that are lost where a delimiter stands, and in brackets where it was removed; means over pairs."""
    smollm2, gemma = (row["falls"] for row in document["rows"])

    def shown(falls: Mapping[str, Any], condition: str, name: str, beside: bool) -> str:
        there = fmean(falls[condition][name])
        if not beside or name == "share":
            return f"{there:.2f}"
        return f"{there:.2f} ({fmean(falls['removed'][name]):.2f})"

    rows = [
        (
            words,
            shown(smollm2, "documents", name, beside=True),
            shown(gemma, "documents", name, beside=True),
            shown(gemma, "several", name, beside=False),
        )
        for name, words in _FALLS.items()
    ]
    head = (
        "share lost, in brackets without a delimiter",
        "SmolLM2, end of text",
        "Gemma 3, end",
        "Gemma 3, end and beginning",
    )
    own, rest = (VERDICTS[claim["holds"]] for claim in document["claims"])
    seconds = sum(row["seconds"] for row in document["rows"])
    return {
        **{"table": table(head, rows), "pairs": str(len(document["rows"][0]["pairs"])), "own": own, "rest": rest},
        "minutes": f"{seconds / 60:.0f}",
    }


def truncation_lengths(document: Mapping[str, Any]) -> dict[str, str]:
    """What is lost at each length, at the model's ESS and at a quarter of it."""
    names = dict(zip(dict.fromkeys(row["file"] for row in document["rows"]), _MODELS, strict=True))
    rows: list[tuple[str, ...]] = []
    for row in document["rows"]:
        runs = {(one["rule"], one["scale"]): one for one in row["rows"]}
        whole, quarter = runs["ess", 1.0], runs["ess", 0.25]
        shares = (_told(run["share"], ".1%") for run in (whole, quarter))
        rows.append(
            (names[row["file"]], f"{row['tokens']:,}", f"{row['worth']['mean']:.2f}", f"{whole['kept']:.1f}", *shares)
        )
    head = ("model", "tokens", "context's worth (nats)", "numbers per channel", "lost at its ESS", "at a quarter")
    return {"table": table(head, rows), "documents": str(document["rows"][0]["documents"])}


def published_caches(document: Mapping[str, Any]) -> dict[str, str]:
    """What each way to make the cache smaller costs."""
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
    ]
    head = ("cache", "bytes", "extra nats a token", "extra bits a byte", "passkeys found")
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
        "saved": estimate(-saved["mean"], [-end for end in reversed(saved["interval"])], ".3f"),
    }


def published_caches_gemma(document: Mapping[str, Any]) -> dict[str, str]:
    """The same of Gemma 3, and what curves lose more than equal budgets at an eighth."""
    (more,) = (one for one in document["rows"][0]["against_equal"] if one["keep"] == 0.125)
    return published_caches(document) | {"more_12": _told(more, ".3f")}


def cache_budgets(document: Mapping[str, Any]) -> dict[str, str]:
    """Budgets by curves of each kind of text, and by ESS, priced on all kinds."""
    found = {(row["budgets"], row["kind"], row["keep"]): row for row in document["rows"]}
    columns = [(kind, keep) for kind in document["texts"] for keep in (0.5, 0.25)]

    budgets = dict.fromkeys(row["budgets"] for row in document["rows"])
    rows = [(way, *(_told(found[way, *column]["nats"]) for column in columns)) for way in budgets]
    head = ("budgets", *(f"{kind}, {100 * keep:.4g} %" for kind, keep in columns))
    others = {"prose": "code", "code": "prose", "chat": "prose"}
    swapped = {
        f"swapped_{kind}": _told(
            _difference(found[f"curves of {other}", kind, 0.25], found[f"curves of {kind}", kind, 0.25])
        )
        for kind, other in others.items()
    }
    clear = [found["joint ESS", kind, keep]["against_equal"]["interval"][1] < 0 for kind, keep in columns]
    return {
        "table": table(head, rows),
        "ess_clear": f"{sum(clear)} of {len(clear)}",
        "ess_prose_25": _told(found["joint ESS", "prose", 0.25]["against_equal"]),
        "ess_behind": _told(_difference(found["joint ESS", "prose", 0.25], found["curves of prose", "prose", 0.25])),
        "documents": str(document["documents"]),
        "calibration": str(document["calibration"]),
        **{
            f"{kind}_seconds": f"{document['calibration_seconds'][kind] / document['calibration']:.1f}"
            for kind in ("prose", "default")
        },
        **swapped,
    }


def _told(found: Mapping[str, Any], form: str = ".3f") -> str:
    """A mean and its interval."""
    return estimate(found["mean"], found["interval"], form)


def _difference(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """The difference of two rows, paired by documents."""
    interval = mean_interval(np.array(one["measured"]) - np.array(other["measured"]))
    return {"mean": interval.value, "interval": interval.ends}


_VERDICTS = {True: "met", False: "missed", None: "cannot tell"}


def _aim(target: Mapping[str, float]) -> str:
    """A target's number, at a share of the tokens."""
    (kind, value) = next((kind, value) for kind, value in target.items() if kind != "keep")
    shown = f"{value:g} {kind.replace('nats', 'nats a token')}" if "nats" in kind else f"{value:.0%} {kind}"
    return f"{shown}, at {100 * target['keep']:.4g} % of the tokens"
