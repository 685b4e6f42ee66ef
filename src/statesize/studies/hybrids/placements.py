"""Runs of hybrids: where their attention stands, and what was measured early and over training."""

from __future__ import annotations

import json
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from statesize.studies.grid.run import Row
from statesize.studies.page.final import FinalRun, final_runs

EARLY = 0.1
"""The share of training after which ESS should tell."""

ATTENTION = "sa"
"""The mixer that is placed among the others."""


@dataclass(frozen=True)
class PlacedRun:
    """A run with its placement and its early measurement.

    Attributes:
        run: The run.
        early: The first row at or after 10 % of its training.
        over_training: Mean accuracy of all measurements after the start: which learn sooner, where all end alike.
    """

    run: FinalRun
    early: Row
    over_training: float

    @property
    def layers(self) -> tuple[str, ...]:
        """The mixer of each layer; those of a pattern repeat."""
        model = json.loads(str(self.run.last["settings"]))["model"]
        pattern = self.run.mixer.split(",")
        return tuple(pattern[layer % len(pattern)] for layer in range(model["layers"]))

    @property
    def placement(self) -> str:
        """All layers, such as "gla,sa,gla,gla"."""
        return ",".join(self.layers)

    @property
    def attention(self) -> int:
        """How many layers are attention."""
        return self.layers.count(ATTENTION)

    @property
    def trial(self) -> tuple[Hashable, ...]:
        """Runs of equal trials differ in their placement only."""
        run = self.run
        shape = (run.key_size, run.heads, run.width, run.intervention)
        return (run.task, run.kv, run.length, *shape, run.rate, run.seed)


def placed_runs(rows: Sequence[Row]) -> list[PlacedRun]:
    """The runs that did not diverge, with their early measurements.

    Args:
        rows: All rows of the study.

    Returns:
        One a run.
    """
    found: list[PlacedRun] = []
    for run in final_runs(rows):
        measured = [row for row in rows if row["run"] == run.last["run"] and number(row, "step") > 0] or [run.last]
        early = [row for row in measured if number(row, "step") >= EARLY * number(run.last, "step")]
        over_training = float(np.mean([number(row, "accuracy") for row in measured]))
        found.append(PlacedRun(run, min(early, key=lambda row: number(row, "step")), over_training))
    return found


def number(row: Row, column: str) -> float:
    """A column of numbers.

    Args:
        row: Of a study.
        column: Its name.

    Returns:
        The number.
    """
    return float(row[column])
