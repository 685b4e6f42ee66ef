"""The figures of pages about trends: through a training, with the length of the context."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from statesize.lab.trends.growth import FEWEST_LENGTHS, saturates
from tools.figures.on_record import estimate, table


def length(documents: list[Mapping[str, Any]]) -> dict[str, str]:
    """ESS of models after contexts of several lengths: means, exponents, and how many heads still grow."""
    courses = ("grows", "levels off", "not clear")
    contexts = [one["length"] for one in documents[0]["lengths"]]
    trained = documents[0]["trained_length"]
    rows = [
        (
            f"`{one['model']}`",
            *(f"{value:.1f}" for value in one["layers"][0]["entropy"]),
            _exponent(one),
            ", ".join(str(sum(row["course"] == course for row in _heads(one))) for course in courses),
        )
        for one in documents
    ]
    headings = ("model", *(f"{one:,}" + (" †" if one > trained else "") for one in contexts), "exponent", "heads")
    return {
        "table": table(headings, rows),
        "lengths": ",".join(map(str, contexts)),
        "excerpts": str(documents[0]["excerpts"]),
        "future": str(documents[0]["future"]),
    }


def bundled_length(documents: list[Mapping[str, Any]]) -> dict[str, str]:
    """The bundled models, also how much more linear ones carry after the trained length than after the shortest."""
    contexts = [one["length"] for one in documents[0]["lengths"]]
    place = contexts.index(documents[0]["trained_length"])
    means = {one["model"]: one["layers"][0]["entropy"] for one in documents}
    grown = [f"`{name}` {means[name][place] / means[name][0] - 1:.0%}" for name in ("la", "gla", "gated-deltanet")]
    return length(documents) | {"grown": ", ".join(grown)}


def _exponent(document: Mapping[str, Any]) -> str:
    """The exponent of the mean over all channels, told where the command tells one: near no ceiling was any."""
    first = document["exponents"][0]
    places = [index for index, one in enumerate(document["lengths"]) if one["length"] <= document["trained_length"]]
    means = np.array(document["layers"][0]["entropy"])[places]
    if len(places) >= FEWEST_LENGTHS and saturates([document["lengths"][index]["length"] for index in places], means):
        return "saturates" if first["course"] == "levels off" else "slows down"
    return estimate(first["exponent"], first["exponent_interval"], ".2f")


def _heads(document: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Exponents of single heads or channels; what heads of one cache carry together is none."""
    return [row for row in document["exponents"] if row["unit"] and not row["layer"].endswith(", joint")]


def text_series(document: Mapping[str, Any]) -> dict[str, str]:
    """ESS through the training of a text model of each mixer."""
    first = document["rows"][0]
    steps = first["steps"]
    rows = [
        (
            f"`{row['mixer']}`",
            f"{row['bits_per_byte']:.2f}",
            *(f"{row['entropy'][place]:.1f}" for place in (0, -1)),
            estimate(row["change"]["difference"], row["change"]["interval"], "+.1f"),
        )
        for row in document["rows"]
    ]
    moved: dict[str, list[str]] = {"falls": [], "rises": [], "not clear": []}
    for row in document["rows"]:
        low, high = row["change"]["interval"]
        moved["falls" if high < 0 else "rises" if low > 0 else "not clear"].append(row["mixer"])
    return {
        "table": table(("mixer", "bits per byte", "ESS before", f"after {steps[-1]}", "change"), rows),
        "steps": str(steps[-1]),
        "kept": str(steps[1]),
        "texts": str(first["texts"]),
        "mixers": str(len(rows)),
        "fall": str(len(moved["falls"])),
        "rise": _named(moved["rises"]),
        "unclear": _named(moved["not clear"]),
        "early": str(sum(row["largest"]["from"] == f"step-{steps[0]:06d}" for row in document["rows"])),
    }


def _named(mixers: list[str]) -> str:
    return ", ".join(f"`{mixer}`" for mixer in mixers) or "none"
