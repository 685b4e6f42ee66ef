"""The figures of the page about the length of the context."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from statesize.lab.trends.growth import shape_of
from statesize.measurement.statistics import Interval
from tools.figures.on_record import estimate, table


def length(documents: list[Mapping[str, Any]]) -> dict[str, str]:
    """ESS of models after contexts of several lengths, its exponent, and how much more linear ones carry after all."""
    contexts = [one["length"] for one in documents[0]["lengths"]]
    trained = documents[0]["trained_length"]
    means = {one["model"]: one["layers"][0]["entropy"] for one in documents}
    rows = [
        (f"`{one['model']}`", *(f"{value:.1f}" for value in means[one["model"]]), _exponent(one)) for one in documents
    ]
    headings = ("model", *(f"{one:,}" + (" †" if one > trained else "") for one in contexts), "exponent")
    place = contexts.index(trained)
    grown = [f"`{name}` {found[place] / found[0] - 1:.0%}" for name, found in means.items() if name != "sa"]
    return {
        "table": table(headings, rows),
        "excerpts": str(documents[0]["excerpts"]),
        "future": str(documents[0]["future"]),
        "grown": ", ".join(grown),
    }


def _exponent(document: Mapping[str, Any]) -> str:
    """The exponent of the average where it is a power law, else what it is."""
    first, average = document["exponents"][0], document["layers"][0]
    trained = [one["length"] for one in document["lengths"] if one["length"] <= document["trained_length"]]
    means, ceilings = (np.array(average[metric][: len(trained)]) for metric in ("entropy", "ceiling"))
    shape = shape_of(trained, means, ceilings, Interval(first["last"], *first["last_interval"]))
    return estimate(first["exponent"], first["exponent_interval"], ".2f") if shape == "power law" else shape
