"""The figures and the pictures of the page about two published models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from statesize.lab.studies.engine.statistics import Numbers, of_mean, spearman
from statesize.measurement.settings import MARKED
from tools.figures.on_record import estimate, read_json, table

_MODELS = {"SmolLM2-135M-Instruct.Q4_1": "SmolLM2-135M", "gemma-3-270m-q4_k_m": "Gemma 3 270M"}
_KINDS = {"ess": "ESS", "ess_without_sink": "without its sink"}


def published_models(document: Mapping[str, Any]) -> dict[str, str]:
    """ESS by kind of text, its growth, sinks, and whether the same heads have most."""
    rows = {_MODELS[row["file"]]: row for row in document["rows"]}
    kinds = [
        (kind, *(_mean(row["kinds"][kind][column]) for row in rows.values() for column in _KINDS))
        for kind in next(iter(rows.values()))["kinds"]
    ]
    contexts = [one["context"] for one in next(iter(rows.values()))["growth"]["rows"]]
    growth = [
        (name, *(_mean(one["ess"]) for one in row["growth"]["rows"]), _mean(exponents(row["growth"]), ".2f"))
        for name, row in rows.items()
    ]
    found = {
        "kinds": table(("text", *(f"{name}, {words}" for name in rows for words in _KINDS.values())), kinds),
        "growth": table(("model", *(f"{one:,} tokens" for one in contexts), "exponent"), growth),
        "texts": str(len(next(iter(rows.values()))["kinds"]["prose"]["ess"])),
        "future": str(next(iter(rows.values()))["growth"]["future"]),
        "minutes": " and ".join(f"{row['seconds'] / 60:.0f}" for row in rows.values()),
    }
    return found | {f"{name}_{_short(model)}": text for model, row in rows.items() for name, text in _own(row).items()}


def published_documents(document: Mapping[str, Any]) -> dict[str, str]:
    """ESS over pieces of prose that were drawn at random, how far they differ, and whether intervals of few cover."""
    found, carried = dict[str, str](), list[Numbers]()
    for file, model in _MODELS.items():
        rows = [row for row in document["rows"] if row["file"] == file]
        ess, sinkless = (np.array([row[name] for row in rows]) for name in ("ess", "ess_without_sink"))
        carried.append(ess)
        found |= {
            "documents": f"{len(rows)}",
            f"{_short(model)}_ess": _mean(ess),
            f"{_short(model)}_sinkless": _mean(sinkless),
            f"{_short(model)}_range": f"{ess.min():.1f} to {ess.max():.1f}",
        }
    found["eight"] = " and ".join(f"{covered(ess, 8):.0%}" for ess in carried)
    return found


def covered(values: Numbers, few: int) -> float:
    """How many intervals of so few values, drawn with replacement, hold the mean of all."""
    drawn = np.random.default_rng(0).choice(values, (2000, few))
    intervals = (of_mean(row).interval() for row in drawn)
    return float(np.mean([one.low <= values.mean() <= one.high for one in intervals]))


def exponents(growth: Mapping[str, Any]) -> list[float]:
    """The slope of log ESS against log of the context, in each piece of text."""
    contexts = np.log([one["context"] for one in growth["rows"]])
    ess = np.log([one["ess"] for one in growth["rows"]])
    return np.polyfit(contexts, ess, 1)[0].tolist()


def _own(row: Mapping[str, Any]) -> dict[str, str]:
    """What sentences say of one model."""
    heads = row["heads"]
    prose, shares = np.array(heads["prose"]["ess"]), np.array(heads["prose"]["sink_share"])
    sinks = shares > MARKED
    return {
        "least": f"{prose.min():.1f}",
        "most": f"{prose.max():.1f}",
        "sinks": f"{int(sinks.sum())} of {len(sinks)}",
        **{
            f"same_{name}": f"{spearman(prose, np.array(heads[kind]['ess'])):.2f}"
            for name, kind in (("code", "code"), ("fresh", "random weights"))
        },
    }


def _short(model: str) -> str:
    return model.partition(" ")[0].partition("-")[0].lower()


def _mean(values: Sequence[float] | Numbers, form: str = ".1f") -> str:
    interval = of_mean(np.array(values)).interval()
    return estimate(interval.value, (interval.low, interval.high), form)


_CELL, _LEFT, _TOP = 16, 40, 22


def pictures() -> dict[str, str]:
    """Maps of layers and heads as SVG, by their files beside the pages."""
    document = read_json("published_models")
    return {f"images/map-{_short(_MODELS[row['file']])}.svg": head_map(row) for row in document["rows"]}


def head_map(row: Mapping[str, Any]) -> str:
    """ESS of every head on prose, a column a layer; the darker, the larger. A dot marks a head with a sink."""
    heads = row["heads"]["prose"]
    ess, shares = (np.array(heads[name]).reshape(row["layers"], -1) for name in ("ess", "sink_share"))
    layers, each = ess.shape
    most = float(ess.max())
    parts: list[str] = []
    for layer in range(layers):
        x = _LEFT + layer * _CELL
        if layer % 5 == 0:
            parts.append(f'<text x="{x + _CELL / 2:g}" y="{_TOP - 7}" text-anchor="middle">{layer}</text>')
        for head in range(each):
            y = _TOP + head * _CELL
            opacity = float(ess[layer, head]) / most
            parts.append(
                f'<rect x="{x}" y="{y}" width="{_CELL - 1}" height="{_CELL - 1}" fill="#0072B2" '
                f'fill-opacity="{opacity:.2f}"><title>layer {layer}, head {head}: ESS {ess[layer, head]:.1f}, '
                f"sink {shares[layer, head]:.0%}</title></rect>"
            )
            if shares[layer, head] > MARKED:
                parts.append(
                    f'<circle cx="{x + (_CELL - 1) / 2:g}" cy="{y + (_CELL - 1) / 2:g}" r="2" fill="#D55E00"/>'
                )
    width, height = _LEFT + layers * _CELL + 8, _TOP + each * _CELL + 24
    parts.append(f'<text x="{_LEFT - 6}" y="{_TOP - 7}" text-anchor="end">layer</text>')
    parts.append(f'<text x="{_LEFT - 6}" y="{_TOP + 12}" text-anchor="end">head</text>')
    parts.append(
        f'<text x="{_LEFT}" y="{height - 8}">darkest: ESS {most:.0f}; dot: a sink (more than {MARKED:.0%})</text>'
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" font-family="sans-serif" '
        f'font-size="11" fill="#8C8C8C">\n' + "\n".join(parts) + "\n</svg>\n"
    )
