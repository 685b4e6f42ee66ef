"""Rows of the short table: a layer, or a range of like layers of a large model."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

from statesize.cli.output.table import BAR, number_text
from statesize.results.summary import average, ess_values, keeps_everything, utilisation_values

if TYPE_CHECKING:
    from statesize.profiling import Profile

_MOST_ROWS = 20
"""Of a model; one of more layers has those that are next to each other and alike on one row."""


@dataclass(frozen=True)
class LayerRow:
    """One row; numbers of several layers as a range."""

    layer: str
    ess: str
    size: int
    keeps_everything: bool
    used: float  # share of the size, mean over its layers
    norm: str


@dataclass(frozen=True)
class _Layer:
    name: str
    ess: float
    error: float
    size: int
    keeps_everything: bool
    used: float
    norm: float

    def like(self) -> tuple[object, ...]:
        """Equal for layers of one size whose bars are as long."""
        return self.size, self.keeps_everything, round(self.used * BAR) if math.isfinite(self.used) else None


def layer_rows(profile: Profile, metric: str) -> list[LayerRow]:
    """The rows of one model by a metric."""
    layers: list[_Layer] = []
    for row in profile.summary_rows():
        node = profile.mixer(row["layer"])
        used, ess = (average(node, values(node, metric)).mean for values in (utilisation_values, ess_values))
        error = row["average_entropy_error" if metric == "entropy" else "average_relative_count_error"]
        layers.append(_Layer(row["layer"], ess, error, row["tss"], keeps_everything(node), used, row["norm"]))
    if len(layers) <= _MOST_ROWS:
        return [_row([layer]) for layer in layers]
    return [_row(list(alike)) for _, alike in groupby(layers, _Layer.like)]


def _row(layers: list[_Layer]) -> LayerRow:
    first, last = layers[0], layers[-1]
    used = [layer.used for layer in layers if math.isfinite(layer.used)]
    return LayerRow(
        first.name if first is last else f"{first.name} … {last.name} ({len(layers)})",
        number_text(first.ess, ".1f", first.error) if first is last else _range([layer.ess for layer in layers], ".1f"),
        first.size,
        first.keeps_everything,
        sum(used) / len(used) if used else math.nan,
        _range([layer.norm for layer in layers], "norm"),
    )


def _range(values: list[float], form: str) -> str:
    least, most = number_text(min(values), form), number_text(max(values), form)
    return least if least == most else f"{least}–{most}"
