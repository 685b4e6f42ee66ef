"""The figures of what was found on published models."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from statesize.lab.studies.engine.statistics import Evidence, Numbers, jackknife, of_mean, ranks, within_cells
from statesize.lab.studies.engine.verdicts import LEVEL, holm
from statesize.measurement.statistics import mean_interval
from tools.figures.on_record import estimate, table

_HEADS = {
    "ess": "entropy-ESS",
    "ess within layers": "entropy-ESS, within layers",
    "attention_entropy": "entropy of the attention",
    "weighted_norm": "norm weighted by values",
}
_FALLS = {
    "entropy/all": "fall of entropy-ESS",
    "entropy/both": "without the columns of the first token and the delimiter",
    "norm/both": "fall of the norm, without both",
    "count_0.1/both": "fall of the count at τ = 0.1, without both",
}
_SMOLLM2, _GEMMA = "SmolLM2", "gemma"


def published_heads(document: Mapping[str, Any]) -> dict[str, str]:
    """Rank correlations, over heads, with what zeroing the past of a head does to the predictions."""
    looks = {look["name"]: look for look in document["looks"]} | document["others"]

    def shown(name: str) -> str:
        return estimate(looks[name]["value"], looks[name]["interval"], ".2f")

    rows = [(words, shown(f"{_SMOLLM2} {name}"), shown(f"{_GEMMA} {name}")) for name, words in _HEADS.items()]
    within = [_within_layers(row) for row in document["rows"]]
    rows += [(f"within layers: {words}", *(str(each[words].interval()) for each in within)) for words in within[0]]
    counts = (f"{row['heads']} heads of {name}" for row, name in zip(document["rows"], _MODELS, strict=True))
    return {
        "table": table(("rank correlation with KL", *_MODELS), rows),
        "ess": shown(f"{_SMOLLM2} ess"),
        "given": " and ".join(f"{each[_GIVEN].value:.2f}" for each in within),
        "heads": " and ".join(counts),
    }


def _within_layers(row: Mapping[str, Any]) -> dict[str, Evidence]:
    """Rank correlations among heads of one layer, by what is correlated; layers are left out one at a time."""
    measures, *costs = ({name: np.array(values) for name, values in part.items()} for part in row["measured"])
    layers = measures["layer"].astype(np.int64)
    ess, entropy, lost = (
        within_cells(ranks(values), layers)
        for values in (
            *(measures[name] for name in ("ess", "attention_entropy")),
            np.mean([cost["kl"] for cost in costs], 0),
        )
    )

    def given(x: Numbers, z: Numbers) -> Evidence:
        return jackknife(lambda heads: _partial(x[heads], lost[heads], z[heads]), layers, correlation=True)

    return {_GIVEN: given(ess, entropy), "the attention's entropy, given ESS": given(entropy, ess)}


_MODELS = ("SmolLM2-135M", "Gemma 3 270M")
_GIVEN = "entropy-ESS, given the attention's entropy"


def published_delimiters(document: Mapping[str, Any]) -> dict[str, str]:
    """Shares that are lost where a delimiter stands, and in brackets where it was removed; means over pairs."""
    smollm2, gemma = (row["falls"] for row in document["rows"])
    columns = {
        "SmolLM2, no delimiter": smollm2["removed"],
        "end of text": smollm2["documents"],
        "Gemma 3, no delimiter": gemma["removed"],
        "end": gemma["documents"],
    }
    rows = [
        (words, *(str(mean_interval(np.array(falls[name]))) for falls in columns.values()))
        for name, words in _FALLS.items()
    ]
    return {"table": table(("share lost", *columns), rows)}


def recurrent_delimiters(document: Mapping[str, Any]) -> dict[str, str]:
    """How far the norm falls at a delimiter beyond its fall at a border without one; means over pairs."""
    falls = {row["file"]: row["falls"] for row in document["rows"]}
    return {
        name.replace("-", "_"): str(
            mean_interval(
                np.array(falls[name]["documents"]["norm/both"]) - np.array(falls[name]["removed"]["norm/both"])
            )
        )
        for name in ("gla", "gated-deltanet")
    }


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


def cache_budgets(document: Mapping[str, Any]) -> dict[str, str]:
    """Budgets by curves of each kind of text, and by ESS, priced on all kinds."""
    found = {(row["budgets"], row["kind"], row["keep"]): row for row in document["rows"]}
    columns = [(kind, keep) for kind in document["texts"] for keep in (0.5, 0.25)]

    others = {"prose": "code", "code": "prose", "chat": "prose"}
    swapped = {
        f"swapped_{kind}": _difference(found[f"curves of {other}", kind, 0.25], found[f"curves of {kind}", kind, 0.25])
        for kind, other in others.items()
    }
    against = [
        of_mean(np.subtract(found["joint ESS", *column]["measured"], found["equal", *column]["measured"]))
        for column in columns
    ]
    clear = [p <= LEVEL for p in holm([one.p_below(0) for one in against])]
    return swapped | {
        "ess_clear": f"{sum(clear)} of {len(clear)}",
        "ess_behind": _difference(found["joint ESS", "prose", 0.25], found["curves of prose", "prose", 0.25]),
    }


def _difference(one: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    """The difference of two rows, paired by documents."""
    return f"{mean_interval(np.subtract(one['measured'], other['measured'])):.3f}"


def _told(found: Mapping[str, Any], form: str = ".3f") -> str:
    """A mean and its interval."""
    return estimate(found["mean"], found["interval"], form)


_VERDICTS = {True: "met", False: "missed", None: "cannot tell"}


def _aim(target: Mapping[str, float]) -> str:
    """A target's number, at a share of the tokens."""
    (kind, value) = next((kind, value) for kind, value in target.items() if kind != "keep")
    shown = f"{value:g} {kind.replace('nats', 'nats per token')}" if "nats" in kind else f"{value:.0%} {kind}"
    return f"{shown}, at {100 * target['keep']:.4g} % of the tokens"


def _partial(x: Numbers, y: Numbers, other: Numbers) -> float:
    """Correlate the residuals of x and y on another quantity, (N,) each; all are centred in their groups."""
    # By the pseudoinverse, of which zeros take nothing away.
    x, y = (values - values @ np.linalg.pinv(other[None]) @ other[None] for values in (x, y))
    return float(x @ y) / float(np.sqrt((x @ x) * (y @ y)))
