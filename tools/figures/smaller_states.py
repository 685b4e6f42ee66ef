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
        "bundled_most": f"{max(found['extra']['compress'][0] for found in document['bundled'].values()):.4f}",
        "bundled": table(("model", *shown, "channels by query and key energy", "at random"), own),
        **{f"{mixer}_ahead": ahead(document, mixer) for mixer in ("wla", "gla")},
        "documents": str(document["held_out_documents"]),
        "recall": table(("mixer", "state kept", "nats lost per answer", "recall", "after"), recall),
        "recall_damaged": str(len(damaged)),
        "text_models": str(len(cut)),
        "text_flagged": str(sum(not found["recall_kept"] for found in cut)),
        "recall_flagged": str(sum(row["safe"] is False for row in damaged)),
    }


def ahead(document: Mapping[str, Any], mixer: str) -> str:
    """By how much more the Gramian tail tells what a cut of a head costs than entropy-ESS, over models of a mixer."""
    models = [one["rank_correlations"] for name, one in document["models"].items() if name.startswith(f"{mixer}-")]
    return f"{of_mean(np.array([one['Gramian tail'] - one['entropy-ESS'] for one in models])).interval():+.2f}"


def caches(document: Mapping[str, Any]) -> dict[str, str]:
    """What smaller caches of softmax attention cost: budgets of heads, and rounding."""
    rows = document["rows"]
    whole = max(row["tokens"] for row in rows)
    found = {(row["way"], row["tokens"]): row for row in rows if row["tokens"] < whole}
    most = max(tokens for _, tokens in found)
    gain, *ends = found["entropy-ESS", most]["against_equal"]
    return {
        "int4": _bits(next(row["extra"] for row in rows if (row["way"], row["tokens"]) == ("int4", whole))),
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
