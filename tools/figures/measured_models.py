"""The page of models on record, from the records in results/models/."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.bounds import TOKENS
from statesize.measurement.statistics import Interval
from statesize.truncation.result import WORTHLESS
from tools.figures.on_record import RESULTS, read_json, table

RECORDS = RESULTS / "models"

MORE_BOUNDS = "more_bounds"
"""The record of models for which no claim on bounds was fixed."""
SIZED = ("a fixed state", "whole layers")
FORMS = {"worth": ".2f", "hindsight": ".1%", "causal": ".1%", "multiple": ".1f"}
"""Both bounds and what follows from them, as the record of bounds names them."""


def records(folder: Path = RECORDS) -> list[dict[str, Any]]:
    """All records, those that carry the same beside each other."""
    read = [json.loads(path.read_text("utf-8")) | {"file": path.name} for path in folder.glob("*.json")]
    return sorted(read, key=lambda one: (one["carries"], one["data"], one["name"]))


def measured_models(known: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """What the page shows of them."""
    return {
        "table": table(
            ("model", "read", "ESS", "without sinks", "of", "share", "half of the heads", "untrained"), map(_row, known)
        ),
        "bounds": _bounds(known),
        **{f"lost_{name}": _range(name) for name in ("hindsight", "causal")},
        "sources": table(
            ("model", "weights", "licence"),
            [
                (f"[{one['name']}](../results/models/{one['file']})", one["package"], one["licence"])
                for one in known
                if not one["package"].startswith("statesize ")
            ],
        ),
        **_told_elsewhere(known),
    }


def _told_elsewhere(known: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """The figures of SmolLM2 that other pages have of other texts, and how many texts they are of."""
    rows = [row for one in known if one["file"] == "smollm2.json" for row in one["lengths"] if row["length"] >= 256]
    told = {f"smollm2_{row['length']}": f"{row['ess']:.1f}" for row in rows}
    return told | {f"smollm2_{row['length']}_texts": f"{row['sequences']}" for row in rows}


def _row(record: Mapping[str, Any]) -> tuple[str, ...]:
    """The three lengths in the cells of one row."""
    rows = record["lengths"]
    untrained = {row["length"]: row["ess"] for row in record["untrained"]}

    def each(cells: Sequence[str]) -> str:
        return " · ".join(cells)

    return (
        record["name"],
        each([f"{row['length']}" for row in rows]) + f" {record['data']}",
        each([f"{row['ess']:.1f}" for row in rows]),
        each([f"{row['ess_without_sinks']:.1f}" for row in rows])
        if any(row["ess"] != row["ess_without_sinks"] for row in rows)
        else "no sinks",
        each([f"{row['of']:.0f}" for row in rows]),
        # What is kept of all tokens has no size of its own.
        each([f"{row['ess'] / row['of']:.0%}" for row in rows]) if record["carries"] in SIZED else "–",
        each([_span(row["spread"][1], row["spread"][3]) for row in rows]),
        each([f"{untrained[row['length']]:.1f}" if row["length"] in untrained else "–" for row in rows]),
    )


def _bounds_found() -> dict[str, Mapping[str, Any]]:
    """Both bounds of all models that read TOKENS, by the digests of their weights."""
    found: dict[str, Mapping[str, Any]] = {}
    for record in (read_json("bounds"), read_json(MORE_BOUNDS)):
        weights = {row["file"]: row["weights"] for row in record["rows"]}
        found |= {weights[one["file"]]: one for one in record["bounds"] if one["tokens"] == TOKENS}
    return found


def _matters(own: Mapping[str, Any]) -> bool:
    return own["worth"]["interval"][0] > WORTHLESS


def _range(name: str) -> str:
    """From the model that loses least to the one that loses most."""
    lost = [one[name]["mean"] for one in _bounds_found().values() if _matters(one)]
    return f"{min(lost):.1%} to {max(lost):.1%}"


def _bounds(known: Sequence[Mapping[str, Any]]) -> str:
    """What the context is worth to language models, and both bounds where it is worth something, by their weights."""
    found = _bounds_found()
    rows: list[tuple[str, ...]] = []
    for one in known:
        if "nats per " not in one["check"]:
            continue
        own = found.get(one["weights"])
        if own is None:
            cells = (*("not measured",) * len(FORMS), "–")
        else:
            worth, *others = (f"{Interval.of(own[name]):{form}}" for name, form in FORMS.items())
            cells = (worth, *(others if _matters(own) else "–" * len(others)), f"{own['documents']}")
        rows.append((one["name"], *cells))
    head = (
        "model",
        "context's worth (nats)",
        "change at ESS with hindsight",
        "at ESS without hindsight",
        "for a change of 1 %: times ESS",
        "texts",
    )
    return table(head, rows)


def _span(low: float, high: float) -> str:
    return f"{low:.1f}–{high:.1f}" if low < high else "one"
