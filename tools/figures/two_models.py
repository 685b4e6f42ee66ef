"""The figures of the page about two published models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from statesize.lab.studies.engine.statistics import Numbers, of_mean, spearman
from tools.figures.on_record import estimate, table

_MODELS = {"SmolLM2-135M-Instruct.Q4_1": "SmolLM2-135M", "gemma-3-270m-q4_k_m": "Gemma 3 270M"}
_KINDS = {"ess": "ESS", "ess_without_sink": "without its sink"}


def published_models(document: Mapping[str, Any]) -> dict[str, str]:
    """ESS by kind of text, its growth, sinks, and whether the same heads have most."""
    rows = {_MODELS[row["file"]]: row for row in document["rows"]}
    kinds = [
        (kind, *(_mean(row["kinds"][kind][column]) for row in rows.values() for column in _KINDS))
        for kind in next(iter(rows.values()))["kinds"]
    ]
    found = {"kinds": table(("text", *(f"{name}, {words}" for name in rows for words in _KINDS.values())), kinds)}
    return found | {f"{name}_{_short(model)}": text for model, row in rows.items() for name, text in _own(row).items()}


def published_documents(document: Mapping[str, Any]) -> dict[str, str]:
    """ESS over pieces of prose that were drawn at random, and how far they differ."""
    found: dict[str, str] = {}
    for file, model in _MODELS.items():
        rows = [row for row in document["rows"] if row["file"] == file]
        ess, sinkless = (np.array([row[name] for row in rows]) for name in ("ess", "ess_without_sink"))
        found |= {
            "documents": f"{len(rows)}",
            f"{_short(model)}_ess": _mean(ess),
            f"{_short(model)}_sinkless": _mean(sinkless),
        }
        found.setdefault("smollm2_range", f"{ess.min():.1f} to {ess.max():.1f}")
    return found


def exponents(growth: Mapping[str, Any]) -> list[float]:
    """The slope of log ESS against log of the context, in each piece of text."""
    contexts = np.log([one["context"] for one in growth["rows"]])
    ess = np.log([one["ess"] for one in growth["rows"]])
    return np.polyfit(contexts, ess, 1)[0].tolist()


def _own(row: Mapping[str, Any]) -> dict[str, str]:
    """Whether the same heads have most on code, or with random weights, as on prose; how ESS grows."""
    heads = row["heads"]
    prose, *others = (np.array(heads[kind]["ess"]) for kind in ("prose", "code", "random weights"))
    names = ("same_code", "same_fresh")
    same = {name: f"{spearman(prose, other):.2f}" for name, other in zip(names, others, strict=True)}
    return same | {"exponent": _mean(exponents(row["growth"]), ".2f")}


def _short(model: str) -> str:
    return model.partition(" ")[0].partition("-")[0].lower()


def _mean(values: Sequence[float] | Numbers, form: str = ".1f") -> str:
    interval = of_mean(np.array(values)).interval()
    return estimate(interval.value, (interval.low, interval.high), form)
