"""Does a larger state help where the state is full, and an open gate where it is idle?

Parnichkun et al., "Quantifying Memory Utilization with Effective State-Size", ICML 2025, section 4.2, tell two ways to
fail apart, saturation and collapse. Here each is met by the remedy of either.
"""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

from statesize.lab.studies import Study, study
from statesize.lab.studies.engine.grid import SCHEDULE, SHAPE, Grid, RunMeasurements, TrainingRun, smoke, training_runs
from statesize.lab.studies.engine.statistics import mean, numbers, of_mean
from statesize.lab.studies.engine.table import FinalRun, StudyTable, grouped
from statesize.lab.studies.engine.verdicts import Claim, Findings

PLAIN, LARGER, OPENED = "plain", "larger", "opened"
SATURATED, COLLAPSED = "saturated", "collapsed"
ARMS = {
    (SATURATED, PLAIN): {"key_size": 1, "decay_bias": 3.0},
    (SATURATED, LARGER): {"key_size": 2, "decay_bias": 3.0},
    (SATURATED, OPENED): {"key_size": 1, "decay_bias": 9.0},
    (COLLAPSED, PLAIN): {"key_size": 8, "decay_bias": -6.0},
    (COLLAPSED, LARGER): {"key_size": 16, "decay_bias": -6.0},
    (COLLAPSED, OPENED): {"key_size": 8, "decay_bias": 0.0},
}
"""Two models that fail in two ways, and the same with twice the state, and with gates that start more open by 6."""
SMOKE = smoke([{"pairs": 4, "length": 32}], variants=list(ARMS.values()))

RECORD = Grid(
    variants=list(ARMS.values()),
    claim=Claim(
        statement="At about the same accuracy, a run whose state is full gains from twice the state, and more than from"
        " gates that start more open; a run whose state is idle gains from these gates, and more than from "
        "twice the state.",
        unit="seed",
        least_units=5,
        pilot="some 40 runs, from which size, task, steps and gates were chosen, of this grid two seeds an arm. Gates "
        "were closed further, from a bias of -4 to -6, when one of two runs with twice the state reached .70 at -4. "
        "An earlier claim, on pairs matched in accuracy with 16 pairs in 64 tokens and n = 2 and 16, was dropped after "
        "one of its runs (seed 9500), since in 37 pilot runs hardly any pair was matched",
        thresholds={
            "saturated_larger": 0.0,
            "saturated_larger_less_opened": 0.0,
            "collapsed_opened": 0.0,
            "collapsed_opened_less_larger": 0.0,
        },
    ),
    model=SHAPE | {"mixer": "gla", "width": 32},
    training=SCHEDULE | {"steps": 400, "batch_size": 32, "rate": 0.01, "seed": [*range(9700, 9710)]},
    measuring=RunMeasurements(every=400, sequences=8),
    tasks=[{"name": "mqar", "pairs": 8, "length": 32, "vocabulary_size": 32}],
)

# Three minutes of a core: the record with five new seeds.
LAPTOP = replace(RECORD, training=RECORD.training | {"seed": [*range(9800, 9805)]})

CAVEATS = (
    "A state of one number is always full: its ESS is 1 by arithmetic.",
    "Plain runs fail alike, but not at one accuracy: with closed gates they stay at guessing, with a full state they "
    "stop above it.",
    "The two kinds differ in the size of their state and in where their gates start, as they must.",
    "One mixer, one task, one learning rate; small models.",
)


def arm_of(run: FinalRun) -> tuple[str, str]:
    """How a run is meant to fail, and its remedy."""
    model = run.settings["model"]
    return next(arm for arm, fields in ARMS.items() if fields.items() <= model.items())


@study("crossover")
class Crossover(Study):
    """The study of crossover."""

    presets: ClassVar = {"smoke": SMOKE, "laptop": LAPTOP, "record": RECORD}
    caveats = CAVEATS

    def runs(self, grid: Grid) -> tuple[TrainingRun, ...]:
        """The runs of a grid seed by seed, so that a part of them has whole seeds."""
        return tuple(sorted(training_runs(grid), key=lambda run: run.training.seed))

    def analyse(self, table: StudyTable, findings: Findings) -> None:
        """What each remedy adds to the accuracy of saturated and of collapsed runs, over seeds."""
        runs = table.runs
        for (kind, remedy), members in grouped(runs, arm_of).items():
            findings.add(f"{kind}_{remedy}_accuracy", of_mean(numbers(run.accuracy for run in members)))
            findings.add(f"{kind}_{remedy}_utilisation", of_mean(numbers(run.utilisation for run in members)))
            findings.figures[f"{kind}_{remedy}_learned"] = float(sum(not run.guesses for run in members))
        # The runs of all arms that are alike in all else; a seed has one such set for each setting of the grid.
        alike = grouped(runs, lambda run: (run.seed, run.settings_without("key_size", "decay_bias")))
        sets = {key: grouped(members, arm_of) for key, members in alike.items()}
        seeds = grouped((key for key, of in sets.items() if of.keys() == ARMS.keys()), lambda key: key[0])
        accuracy = {
            arm: numbers(mean(run.accuracy for key in keys for run in sets[key][arm]) for keys in seeds.values())
            for arm in ARMS
        }
        findings.add("plain_difference", of_mean(accuracy[SATURATED, PLAIN] - accuracy[COLLAPSED, PLAIN]))
        for kind, remedy, other in ((SATURATED, LARGER, OPENED), (COLLAPSED, OPENED, LARGER)):
            for name in (remedy, other):
                findings.add(f"{kind}_{name}", of_mean(accuracy[kind, name] - accuracy[kind, PLAIN]))
            findings.add(f"{kind}_{remedy}_less_{other}", of_mean(accuracy[kind, remedy] - accuracy[kind, other]))
