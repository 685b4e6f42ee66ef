"""The figures of the page about smaller states."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from statesize.lab.studies.engine.statistics import of_mean
from tools.figures.on_record import estimate, table


def compression(document: Mapping[str, Any]) -> dict[str, str]:
    """Half the state: means over seeds, the bundled models, which numbers tell the damage, and recall."""
    shown = ("compress", "int8 alone", "a quarter with int8")
    rows = [
        (
            f"`{mixer}`",
            _bits(found["extra"]["compress"]),
            f"{_bits(found['extra'][found['best_channels']])}, {found['best_channels']}",
            "{:.2f} [{:.2f}, {:.2f}]".format(*found["share_of_best_channels"]),
        )
        for mixer, found in document["mixers"].items()
    ]
    own = [
        (
            f"`{name}`",
            *(_bits(found["extra"][way]) for way in (*shown, "query and key energy", "random")),
        )
        for name, found in document["bundled"].items()
    ]
    cut = [*document["models"].values(), *document["bundled"].values()]
    damaged = [row for row in document["recall"] if row["lost_nats"] >= 0.1]
    cuts: defaultdict[tuple[str, str], list[Mapping[str, Any]]] = defaultdict(list)
    for row in document["recall"]:
        cuts[row["model"].rpartition("-")[0], row["state"]].append(row)
    recall = [
        (
            f"`{mixer}`",
            state,
            _range([row["lost_nats"] for row in rows], ".2f"),
            *(_range([row["recall"][when] for row in rows], ".0%") for when in ("before", "after")),
        )
        for (mixer, state), rows in cuts.items()
    ]
    return {
        "table": table(("mixer", "`compress`", "best channels", "share"), rows),
        "bundled_most": f"{max(found['extra']['compress'][0] for found in document['bundled'].values()):.4f}",
        "bundled": table(("model", *shown, "channels by query and key energy", "at random"), own),
        "tails": tails(document),
        "seeds": str(document["mixers"]["la"]["seeds"]),
        "steps": str(document["training"]["steps"]),
        "documents": str(document["held_out_documents"]),
        "recall": table(("mixer", "state kept", "nats lost per answer", "recall", "after"), recall),
        "recall_damaged": str(len(damaged)),
        "text_models": str(len(cut)),
        "text_flagged": str(sum(not found["recall_kept"] for found in cut)),
        "recall_flagged": str(sum(row["safe"] is False for row in damaged)),
    }


def tails(document: Mapping[str, Any]) -> str:
    """The Gramian tail beside entropy-ESS as predictors of what a cut of a head costs, and how often it tells more."""
    rows: list[tuple[str, ...]] = []
    for mixer, found in document["mixers"].items():
        own = [model["rank_correlations"] for name, model in document["models"].items() if name.startswith(f"{mixer}-")]
        ahead = np.array([one["Gramian tail"] - one["entropy-ESS"] for one in own])
        difference = of_mean(ahead).interval()
        rows.append(
            (
                f"`{mixer}`",
                *(
                    estimate(mean, ends, ".2f")
                    for mean, *ends in map(found["rank_correlations"].get, ("Gramian tail", "entropy-ESS"))
                ),
                estimate(difference.value, (difference.low, difference.high), "+.2f"),
                f"{(ahead > 0).sum()} of {len(ahead)}",
            )
        )
    head = ("mixer", "Gramian tail", "entropy-ESS", "mean difference", "larger for the tail in")
    return table(head, rows)


def delta_rules(document: Mapping[str, Any]) -> dict[str, str]:
    """What orthonormal bases of delta rules cost."""
    rows = [
        (f"`{row['model']}`", basis, *map(_bits, found.values()))
        for row in document["rows"]
        for basis, found in row["extra"].items()
        if basis in ("W and C", "channels")
    ]
    shares = next(iter(document["rows"][0]["extra"].values()))
    return {
        "table": table(("mixer", "eigenvectors of", *(f"{share} kept" for share in shares)), rows),
        "documents": str(document["rows"][0]["documents"]),
    }


def mamba2_layers(document: Mapping[str, Any]) -> dict[str, str]:
    """Which numbers tell the damage of a cut of a layer of Mamba-2."""
    (row,) = document["rows"]
    return {
        "layers": str(row["layers"]),
        "tail": f"{row['rank_correlations']['Gramian tail']:.2f}",
        "ess": f"{row['rank_correlations']['entropy-ESS']:.2f}",
    }


def ess_sizes(document: Mapping[str, Any]) -> dict[str, str]:
    """What sizes by a head's ESS, or by its Gramian tail, lose beyond equal sizes."""
    text = {(row["model"], row["share"], row["way"]): row for row in document["rows"] if row["text"]}
    shown = [
        (f"`{model}`", *_equal(row, "+.4f"), _beyond(text[model, share, "Gramian tail"], "+.4f"))
        for (model, share, way), row in text.items()
        if way == "entropy-ESS"
    ]
    recall = [(row["way"], *_equal(row, "+.2f"), f"{row['less']} of {row['models']}") for row in document["recall"]]
    head = ("kept", "equal sizes cost")
    return {
        "text": table(("model", *head, "by entropy-ESS, beyond that", "by the Gramian tail, beyond that"), shown),
        "recall": table(("sizes by", *head, "beyond that", "less in"), recall),
        "models": str(document["recall"][0]["models"]),
    }


def _equal(row: Mapping[str, Any], form: str) -> tuple[str, ...]:
    return f"{row['share']:.0%}", f"{row['equal']:{form}}", _beyond(row, form)


def _beyond(row: Mapping[str, Any], form: str) -> str:
    value, *ends = row["lost"]
    return estimate(value, ends, form)


def gramian_time(document: Mapping[str, Any]) -> dict[str, str]:
    """How long Gramians take beside a forward pass."""
    ratios = [row["ratio"] for row in document["rows"]]
    return {"least": f"{min(ratios):.1f}", "most": f"{max(ratios):.1f}"}


def caches(document: Mapping[str, Any]) -> dict[str, str]:
    """What smaller caches of softmax attention cost: budgets of heads, and rounding."""
    rows = document["rows"]
    whole = max(row["tokens"] for row in rows)
    found = {(row["way"], row["tokens"]): row for row in rows if row["tokens"] < whole}
    most, *_, fewest = sorted({tokens for _, tokens in found}, reverse=True)
    ways = dict.fromkeys(way for way, _ in found)
    rounding = {row["way"]: _bits(row["extra"]) for row in rows if row["tokens"] == whole}
    gain, *ends = found["entropy-ESS", most]["against_equal"]
    return {
        "table": table(
            ("budgets", *(f"{tokens} tokens" for tokens in (most, fewest))),
            ((way, *(_bits(found[way, tokens]["extra"]) for tokens in (most, fewest))) for way in ways),
        ),
        "int4": rounding["int4"],
        "equal": _bits(found["equal", most]["extra"]),
        "by_ess": estimate(gain, ends, "+.4f"),
        "most": str(most),
        "documents": str(document["documents"]),
        "length": str(whole),
    }


def _range(values: Sequence[float], form: str) -> str:
    return f"{min(values):{form}} to {max(values):{form}}"


def _bits(ends: Sequence[float]) -> str:
    """An estimate with its interval."""
    value, low, high = ends
    return f"{value:.4f} [{low:.4f}, {high:.4f}]"
