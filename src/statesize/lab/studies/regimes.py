"""Which mixers fill their state, which leave it idle, and what that does to accuracy.

Parnichkun et al., "Quantifying Memory Utilization with Effective State-Size", ICML 2025, section 4.2.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from operator import attrgetter
from typing import ClassVar

from statesize.lab.studies.engine.grid import SCHEDULE, SHAPE, Grid, RunMeasurements, smoke
from statesize.lab.studies.engine.statistics import Evidence, mean, numbers, of_mean
from statesize.lab.studies.engine.study import Panel, Study, study
from statesize.lab.studies.engine.table import (
    FIELDS_VARYING_BY_MIXER,
    METRIC,
    FinalRun,
    Row,
    StudyTable,
    grouped,
    paired_differences,
)
from statesize.lab.studies.engine.verdicts import Claim, Findings

SMOKE = smoke(
    [{"pairs": [2, 4], "model": {"mixer": ["la", "gla", "wla"], "key_size": 4, "tied": False}, "training": {"seed": 0}}]
)

RECORD = Grid(
    claim=Claim(
        statement="At equal TSS, la uses a larger share of its state than gla and than wla (utilisation_relative_0.01, "
        "over the cuts where the state is what binds).",
        unit="cell of equal task, kv, length and TSS",
        least_units=6,
        pilot="seeds 0–2 of the laptop grid, of which two runs a mixer had 16 numbers",
        thresholds={"la_less_gla": 0.0, "la_less_wla": 0.0},
    ),
    model=SHAPE | {"mixer": ["la", "gla", "wla"], "key_size": [16, 32], "width": 64, "decay_bias": 0.0, "tied": False},
    training=SCHEDULE | {"steps": 600, "batch_size": 16, "rate": 0.006, "seed": [200, 201]},
    measuring=RunMeasurements(every=600, sequences=8),
    tasks=[{"name": "mqar", "pairs": [16, 24, 32], "length": 128, "vocabulary_size": 128}],
)

# Four minutes of a core: the cells of the record with one new seed, enough for its verdict.
LAPTOP = replace(RECORD, training=RECORD.training | {"seed": 300})

FULL, GATED = "la", ("gla", "wla")
"""The mixer that forgets nothing, and those that may."""
_BEGINNING = attrgetter("key_size", "width", "length", "seed")
"""Runs of one mixer with equal beginnings start from equal weights."""

CAVEATS = (
    "The claim is the order of mixers at equal TSS, not that linear attention is always full or solves the task.",
    "Where training starts matters, as where gates start open (a = 0.997).",
    "ESS/TSS is a mean over all positions, and near both ends of a sequence no ESS can reach TSS. Utilisation is the "
    "mean over the cuts where the state is what limits ESS; the claim goes by it.",
    "A cell is one task, kv, length and TSS; its seeds are averaged first, and the test is over cells. Runs of one "
    "size and seed begin with equal weights in all cells, so the differences are also given with beginnings for units.",
)


def _difference(
    runs: Sequence[FinalRun],
    gated: str,
    unit: Callable[[FinalRun], tuple[Hashable, ...]] = attrgetter("cell"),
    value: Callable[[FinalRun], float] = attrgetter("utilisation"),
) -> Evidence:
    """The value of `FULL` less that of `gated`, over the units that have both."""
    differences: list[float] = []
    for members in grouped(runs, unit).values():
        # Runs that differ in their mixer, and in their seeds, only: nothing else of the grid may tell mixers apart.
        full, other = ([run for run in members if run.mixer == name] for name in (FULL, gated))
        differences.append(mean(paired_differences(other, full, *FIELDS_VARYING_BY_MIXER, "seed", value=value)))
    return of_mean(numbers(filter(math.isfinite, differences)))


@study("regimes")
class Regimes(Study):
    """The study of regimes."""

    presets: ClassVar = {"smoke": SMOKE, "laptop": LAPTOP, "record": RECORD}
    caveats = CAVEATS
    panels = tuple(Panel(x, y, mark="setting", lines=True) for x in ("kv", "step") for y in ("ESS / TSS", "accuracy"))

    def analyse(self, table: StudyTable, findings: Findings) -> None:
        """By how much more of its state the full mixer uses than gated ones, before and after training."""
        runs = table.runs
        for gated in GATED:
            if {FULL, gated} <= {run.mixer for run in runs}:
                findings.add(f"{FULL}_less_{gated}", _difference(runs, gated))
                findings.add(f"{FULL}_less_{gated}_by_beginning", _difference(runs, gated, _BEGINNING))
                initial = _difference(runs, gated, value=lambda run: float(run.first[f"utilisation_{METRIC}"]))
                findings.add(f"control_initial_{FULL}_less_{gated}", initial)

    def records(self, table: StudyTable) -> list[Row]:
        """A record for each run by its difficulty, and for each measurement of the runs with the most pairs."""
        hardest, records = max((run.kv for run in table.runs), default=0), list[Row]()
        for run in table.runs:
            for row in (run.first, *run.trained):
                setting = f"{run.task} L {run.length} n {run.key_size}"
                shown: Row = {"mixer": run.mixer, "setting": setting, "accuracy": row["accuracy"]}
                shown["ESS / TSS"] = float(row[METRIC]) / float(row["state_size"])
                records += [{"row": "by difficulty", "kv": run.kv} | shown] if row is run.last else []
                records += [{"row": "with the most pairs", "step": row["step"]} | shown] if run.kv == hardest else []
        return records
