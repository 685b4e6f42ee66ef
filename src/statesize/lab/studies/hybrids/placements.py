"""Runs of hybrids: the layers that are attention, and measurements early and over training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from statesize.lab.studies.grid.run import Row, layer_column
from statesize.lab.studies.page.final import FinalRun, final_runs, grouped
from statesize.lab.studies.statistics import mean

EARLY = 0.1
"""The share of training after which ESS should predict the outcome."""

ATTENTION = "sa"
"""The mixer that is placed among the others."""


@dataclass(frozen=True)
class PlacedRun:
    """A run with its placement and its early measurement."""

    run: FinalRun
    early: Row  # the first row at or after 10 % of the training
    over_training: float  # mean accuracy of all measurements after the start: which learn sooner, where all end alike

    @cached_property
    def layers(self) -> tuple[str, ...]:
        """The mixer of each layer; those of a pattern repeat."""
        pattern = self.run.mixer.split(",")
        return tuple(pattern[layer % len(pattern)] for layer in range(self.run.settings["model"]["layers"]))

    @property
    def placement(self) -> str:
        """All layers, such as "gla,sa,gla,gla"."""
        return ",".join(self.layers)

    @property
    def setting(self) -> tuple[Any, ...]:
        """Runs of equal settings differ in placement and seed only."""
        return self.run.labels("mixer", "seed")

    @cached_property
    def attention_layers(self) -> tuple[int, ...]:
        """The layers that are attention."""
        return tuple(layer for layer, mixer in enumerate(self.layers) if mixer == ATTENTION)

    @property
    def first_place(self) -> int | None:
        """The first layer that is attention; None without any."""
        return self.attention_layers[0] if self.attention_layers else None

    @property
    def attention(self) -> int:
        """The number of layers that are attention."""
        return len(self.attention_layers)


def placed_runs(rows: Sequence[Row]) -> list[PlacedRun]:
    """The runs that did not diverge, with their early measurements."""
    trained = grouped((row for row in rows if number(row, "step") > 0), lambda row: row["run"])
    placed: list[PlacedRun] = []
    for run in final_runs(rows):
        measured = trained.get(run.last["run"], [run.last])
        early = [row for row in measured if number(row, "step") >= EARLY * number(run.last, "step")]
        over_training = mean(row["accuracy"] for row in measured)
        placed.append(PlacedRun(run, min(early, key=lambda row: number(row, "step")), over_training))
    return placed


def mean_ess(placed: PlacedRun, row: Row, metric: str, *, attention: bool) -> float:
    """The mean ESS, in a row of a run, of its layers that are attention, or that are not; NaN if there are none."""
    layers = [layer for layer in range(len(placed.layers)) if (layer in placed.attention_layers) == attention]
    return mean(row[layer_column(metric, layer)] for layer in layers)


def number(row: Row, column: str) -> float:
    """A column of numbers."""
    return float(row[column])
