"""Does ESS per key-value pair tell accuracy better than the size of the state does?

Parnichkun et al., "Quantifying Memory Utilization with Effective State-Size", ICML 2025, section 4.1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

import numpy as np

from statesize.lab.studies.engine.grid import SCHEDULE, SHAPE, Grid, RunMeasurements, smoke
from statesize.lab.studies.engine.statistics import (
    Indices,
    Numbers,
    Statistic,
    jackknife,
    numbers,
    pearson,
    spearman,
    through_origin,
    within_cells,
)
from statesize.lab.studies.engine.study import Panel, Study, study
from statesize.lab.studies.engine.table import METRIC, FinalRun, Row, StudyTable, grouped, numbered
from statesize.lab.studies.engine.verdicts import Claim, Findings

SMOKE = smoke([{"pairs": [2, 4], "model": {"mixer": ["la", "gla"], "key_size": 4, "tied": False}}])

LAPTOP_CLAIM = Claim(
    statement="Among runs of MQAR that differ in their seed only, those with the higher ESS/kv (relative_0.01) have"
    " the higher accuracy (r above 0.2), and ESS at initialisation says less.",
    unit="cell of equal kv, length and TSS",
    least_units=10,
    pilot="runs with seed 0 of this grid with the output layer tied and untied, which chose metric, tasks and rates; "
    "there mixers and rates varied inside cells",
    thresholds={"mqar_inside_cells": 0.2, "mqar_inside_cells_above_control": 0.0},
)


# Seven minutes of a core: three mixers with the same kind of state, and two tasks.
LAPTOP = Grid(
    # Fixed before any run with these seeds, which the pilot did not have.
    claim=LAPTOP_CLAIM,
    model=SHAPE
    | {"mixer": ["la", "gla", "wla"], "key_size": [4, 8, 16], **{"width": 32, "decay_bias": 0.0, "tied": False}},
    training=SCHEDULE | {"steps": 600, "batch_size": 32, "rate": 6e-3, "seed": [100, 101]},
    measuring=RunMeasurements(every=300),
    tasks=[
        {"name": "mqar", "pairs": [6, 10, 16, 24], "length": 64, "vocabulary_size": 64},
        # Position matters here, so there is a learned embedding of it.
        {"name": "compression", "tokens": 20, "symbols": 15, "model": {"positions": 65}},
    ],
)

RECORD = Grid(
    claim=replace(
        LAPTOP_CLAIM,
        least_units=60,
        pilot="runs with seed 0 of the laptop grid with the output layer tied and untied, which chose metric, tasks "
        "and rates; there mixers and rates varied inside cells. 32 runs with seed 0 at these lengths chose gates that "
        "start open, batches, steps and vocabulary such that some runs learn",
    ),
    model=SHAPE
    | {"mixer": ["la", "gla", "wla"], "key_size": [4, 8, 16, 32], **{"width": 64, "decay_bias": 3.0, "tied": False}},
    training=SCHEDULE | {"steps": 1000, "batch_size": 8, "rate": 0.006, "seed": [200, 201]},
    measuring=RunMeasurements(every=1000, sequences=8),
    tasks=[
        {"name": "mqar", "pairs": [8, 12, 16, 20, 24, 28, 32, 36, 40, 44, 48], "length": 128, "vocabulary_size": 128},
        {"name": "mqar", "pairs": [16, 32, 48, 64], "length": 256, "vocabulary_size": 128}
        | {"model": {"mixer": ["la", "gla"]}},
        {"name": "mqar", "pairs": [16, 32], "length": 128, "vocabulary_size": 128}
        | {"model": {"mixer": "sa", "key_size": [2, 4]}},
        {"name": "selective_copying", "tokens": [8, 16], "length": 128}
        | {"model": {"key_size": [4, 16], "positions": 129}},
    ],
)

CAVEATS = (
    "Part of the pooled difference is geometry: no ESS can exceed min(n, i, L − i), so ESS/kv correlates with accuracy "
    "before anything is learned (see the control over all cells). The correlation that stands on its own is that "
    "inside cells of equal task, kv, length and TSS with mixer and rate held fixed, with the ESS at initialisation as "
    "its control: only seeds differ there.",
    "Runs that never leave the plateau of guessing carry part of every correlation. All figures are given with and "
    "without these runs; leaving them out selects runs by their outcome.",
    "Intervals leave out one cell of the grid at a time. These are small models, a few hundred steps, one machine.",
)


INSIDE = "ESS / kv less its mean", "accuracy less its mean"
"""Of the runs of a cell, which are equal in TSS and kv."""


def _add_association(name: str, runs: Sequence[FinalRun], findings: Findings) -> None:
    """Correlates accuracy and state sizes over some runs: pooled, and inside cells with the mixer held fixed."""
    kv, accuracy = numbers(run.kv for run in runs), numbers(run.accuracy for run in runs)
    ess, initial = numbers(run.ess for run in runs) / kv, numbers(run.initial_ess for run in runs) / kv
    size, cells = numbers(run.state_size for run in runs) / kv, numbered([run.cell for run in runs])
    same_settings = numbered([run.settings_without("seed") for run in runs])

    def difference(rows: Indices) -> float:
        return pearson(ess[rows], accuracy[rows]) - pearson(size[rows], accuracy[rows])

    def inside(x: Numbers) -> Statistic:
        """Pearson's correlation with accuracy, both less their means over runs that differ in their seed only."""
        # Cells are left out whole, so means over groups do not change.
        x, y = within_cells(x, same_settings), within_cells(accuracy, same_settings)
        return lambda rows: through_origin(x[rows], y[rows])

    def more_than_initially(rows: Indices) -> float:
        return inside(ess)(rows) - inside(initial)(rows)

    findings.add(f"{name}_pearson_difference", jackknife(difference, cells))
    findings.add(f"{name}_inside_cells", jackknife(inside(ess), cells, correlation=True))
    findings.add(f"control_{name}_initial_inside_cells", jackknife(inside(initial), cells, correlation=True))
    findings.add(f"{name}_inside_cells_above_control", jackknife(more_than_initially, cells))
    for key, x in {"ess": ess, "tss": size}.items():
        findings.figures[f"{name}_pearson_{key}"] = pearson(x, accuracy)
        findings.figures[f"{name}_spearman_{key}"] = spearman(x, accuracy)
    findings.figures[f"control_{name}_initial_pearson"] = pearson(initial, accuracy)
    kinds = ("entropy", "relative_", "tolerance_")
    columns = [key for key in runs[0].last if key.startswith(kinds) and "_layer_" not in key and key != METRIC]
    others = {column: numbers(run.last[column] for run in runs) / kv for column in columns}
    for column, values in (others | {"norm": numbers(run.last["norm"] for run in runs)}).items():
        findings.figures[f"{name}_inside_cells_{column}"] = inside(values)(np.arange(len(runs)))


@study("correlation")
class Correlation(Study):
    """The study of correlation."""

    presets: ClassVar = {"smoke": SMOKE, "laptop": LAPTOP, "record": RECORD}
    caveats = CAVEATS
    panels = tuple(Panel(x, y, mark="n") for x, y in (("TSS / kv", "accuracy"), ("ESS / kv", "accuracy"), INSIDE))

    def analyse(self, table: StudyTable, findings: Findings) -> None:
        """Correlates ESS, by the column of the claim and by all others, with accuracy, task by task."""
        for task, runs in grouped(table.runs, lambda run: run.task).items():
            off_plateau = [run for run in runs if not run.guesses]
            for name, chosen in ((task, runs), (f"{task}_off_plateau", off_plateau)):
                findings.figures[f"{name}_runs"] = float(len(chosen))
                if len(chosen) > 2:
                    _add_association(name, chosen, findings)

    def records(self, table: StudyTable) -> list[Row]:
        """A record for each run, also with what ESS/kv and accuracy differ by from the means of its cell."""
        cells = numbered([run.cell for run in table.runs])
        ess, accuracy = numbers(run.ess / run.kv for run in table.runs), numbers(run.accuracy for run in table.runs)
        left = zip(within_cells(ess, cells), within_cells(accuracy, cells), strict=True)
        return [run.record | dict(zip(INSIDE, less, strict=True)) for run, less in zip(table.runs, left, strict=True)]
