"""Which mixers fill their state, which leave it idle, and what that does to accuracy.

Parnichkun et al., "Quantifying Memory Utilization with Effective State-Size", ICML 2025, section 4.2.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from typing import Any, ClassVar, cast

import altair as alt
import numpy as np
from scipy import stats

from statesize.lab.studies.engine.charts import SIDE, dash, mean_lines
from statesize.lab.studies.engine.conclusion import Findings
from statesize.lab.studies.engine.grid import SCHEDULE, SHAPE, Grid, RunMeasurements, smoke
from statesize.lab.studies.engine.statistics import Evidence, mean, of_mean
from statesize.lab.studies.engine.study import Study, study
from statesize.lab.studies.engine.table import (
    FIELDS_VARYING_BY_MIXER,
    FinalRun,
    Row,
    StudyTable,
    grouped,
    paired_differences,
)
from statesize.lab.studies.engine.verdicts import Claim

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

SOLVED = 0.95
"""Accuracy from which on a run counts as having solved its task."""

COLLAPSED = 0.5
"""Utilisation up to which the state of an unsolved task counts as collapsed."""

FULL, GATED = "la", ("gla", "wla")
"""The mixer that forgets nothing, and those that may."""

CAVEATS = (
    "The claim is the order of mixers at equal TSS, not that linear attention is always full or solves the task.",
    "Where training starts matters, as where gates start open (a = 0.997).",
    "A run that never leaves guessing has no diagnosis, as it may not have learnt to use its state. The figures "
    "MIXER_collapsed count it where its utilisation is low.",
    "ESS/TSS is a mean over all positions, and near both ends of a sequence no ESS can reach TSS. Utilisation is the "
    "mean over the cuts where the state is what limits ESS; diagnoses go by it.",
    "A cell is one task, kv, length and TSS; its seeds are averaged first, and the test is over cells. Runs of one "
    "size and seed begin with equal weights in all cells, so the differences are also given with beginnings for units. "
    "Fisher's exact test of how often mixers solve their task takes all runs for independent.",
    "A diagnosis says how the state is used and whether the task is solved; that the one causes the other is shown by "
    "an intervention only.",
)


def _is_solved(run: FinalRun) -> bool:
    return run.accuracy >= SOLVED


def _is_collapsed(run: FinalRun) -> bool:
    return run.utilisation <= COLLAPSED and not _is_solved(run)


def _named(run: FinalRun) -> str:
    """The name of a run's figures; seeds and rates share one."""
    name = f"{run.task}_{run.length}_kv{run.kv}_n{run.key_size}_{re.sub('[^a-z0-9]', '_', run.mixer)}"
    # A control: nothing is different but the first values of some weights.
    return name if run.intervention == "none" else f"control_{name}_{run.intervention}"


def _add_comparison(runs: Sequence[FinalRun], gated: str, findings: Findings) -> None:
    """How much more of its state `FULL` uses than `gated`, before and after training, and which solves the task."""
    name = f"{FULL}_less_{gated}"
    findings.add(name, _difference(runs, gated, lambda run: run.cell, lambda run: run.utilisation))
    findings.add(f"{name}_by_beginning", _difference(runs, gated, _beginning, lambda run: run.utilisation))
    initial = _difference(runs, gated, lambda run: run.cell, lambda run: float(run.first[f"utilisation_{run.metric}"]))
    findings.add(f"control_initial_{name}", initial)
    of_mixers = [[run for run in runs if run.mixer == name] for name in (FULL, gated)]
    solved = [[sum(map(_is_solved, of)), len(of) - sum(map(_is_solved, of))] for of in of_mixers]
    p = float(cast("Any", stats).fisher_exact(solved).pvalue)
    collapsed = float(sum(map(_is_collapsed, of_mixers[1])))
    findings.figures |= {f"{FULL}_{gated}_solved_p": p, f"{gated}_collapsed": collapsed}


def _beginning(run: FinalRun) -> tuple[Hashable, ...]:
    """Runs of one mixer with equal beginnings start from equal weights."""
    return run.key_size, run.width, run.length, run.seed


def _difference(
    runs: Sequence[FinalRun],
    gated: str,
    unit: Callable[[FinalRun], tuple[Hashable, ...]],
    value: Callable[[FinalRun], float],
) -> Evidence:
    """The value of `FULL` less that of `gated`, over the units that have both."""
    differences: list[float] = []
    for members in grouped(runs, unit).values():
        # Runs that differ in their mixer, and in their seeds, only: nothing else of the grid may tell mixers apart.
        full, other = ([run for run in members if run.mixer == name] for name in (FULL, gated))
        differences.append(mean(paired_differences(other, full, *FIELDS_VARYING_BY_MIXER, "seed", value=value)))
    return of_mean(np.array([one for one in differences if math.isfinite(one)]))


def _setting(row: Row) -> str:
    extra = "" if row["intervention"] == "none" else f" {row['intervention']}"
    return f"{row['task']} L {row['length']} n {row['key_size']}{extra}"


@study("regimes")
class Regimes(Study):
    """The study of regimes."""

    presets: ClassVar = {"smoke": SMOKE, "laptop": LAPTOP, "record": RECORD}
    caveats = CAVEATS

    def analyse(self, table: StudyTable, findings: Findings) -> None:
        """Which mixers are saturated and which collapsed, and by how much their utilisations differ."""
        untreated = [run for run in table.runs if run.intervention == "none"]
        mixers = {run.mixer for run in untreated}
        for gated in GATED:
            if {FULL, gated} <= mixers:
                _add_comparison(untreated, gated, findings)
        for name, members in grouped(table.runs, _named).items():
            findings.figures |= {
                f"{name}_share": mean(run.share for run in members),
                f"{name}_utilisation": mean(run.utilisation for run in members),
                f"{name}_accuracy": mean(run.accuracy for run in members),
            }

    def draw(self, table: StudyTable) -> alt.VConcatChart:
        """ESS/TSS and accuracy against difficulty, and both over training."""
        records: list[Row] = [
            {"mixer": row["mixer"], "setting": _setting(row), "kv": row["kv"], "step": row["step"]}
            | {"ESS / TSS": float(row[table.metric]) / float(row["state_size"]), "accuracy": row["accuracy"]}
            for row in table.own_rows
        ]
        ends = [record for record, row in zip(records, table.own_rows, strict=True) if row["final"]]
        settings = grouped(records, lambda record: record["setting"])
        hardest = {setting: max(int(record["kv"]) for record in of) for setting, of in settings.items()}
        through = [record for record in records if record["kv"] == hardest[record["setting"]]]

        def lines(shown: list[Row], x: str, y: str, title: str) -> alt.Chart:
            drawn = mean_lines(shown, f"{y}, {title}", x, y, "mixer", strokeDash=dash("setting"))
            return drawn.properties(width=1.4 * SIDE)

        return alt.vconcat(
            alt.hconcat(*(lines(ends, "kv", y, "by difficulty") for y in ("ESS / TSS", "accuracy"))),
            alt.hconcat(*(lines(through, "step", y, "most pairs") for y in ("ESS / TSS", "accuracy"))),
        )
