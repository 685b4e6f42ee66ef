"""What the first decays of S6 do to ESS as the state grows, and to what is learned.

Parnichkun et al., "Quantifying Memory Utilization with Effective State-Size", ICML 2025, arXiv 2504.19561: with the
rates −1 … −n the ESS at initialisation stalls or falls as n grows, and the normalisation factor 1/n mends it.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable
from itertools import product
from typing import ClassVar

import numpy as np

from statesize.lab.studies.engine.grid import SCHEDULE, SHAPE, Grid, RunMeasurements, smoke
from statesize.lab.studies.engine.statistics import Numbers, of_mean
from statesize.lab.studies.engine.study import Panel, Study, study
from statesize.lab.studies.engine.table import FinalRun, Row, StudyTable, grouped, paired_differences
from statesize.lab.studies.engine.verdicts import Claim, Findings
from statesize.lab.training.config import TrainingConfig

_BOTH = {"mixer": ["s6", "gla-s6"], "normalised": [False, True]}
_S6 = {"mixer": "s6", "normalised": [False, True]}
SMOKE = smoke(
    [
        {"pairs": 4, "length": 48, "held_out_sequences": 4}
        | {"model": _BOTH | {"key_size": [4, 16], "smallest_step": 0.01}, "training": {"steps": 0}},
        {"pairs": 4, "length": 24, "held_out_sequences": 8, "model": _S6 | {"key_size": 4, "smallest_step": 0.01}},
    ]
)

_SHORT = {"name": "mqar", "pairs": 10, "length": 64, "vocabulary_size": 64}
_LONG = _SHORT | {"length": 192, "held_out_sequences": 8, "training": {"steps": 0}}
_MORE_SEEDS = {"seed": [103, 104]}
RECORD = Grid(
    claim=Claim(
        statement="At the largest state of the grid the normalisation factor gives S6 and GLA-S6 more than 2 times the "
        "ESS (relative_0.01) at initialisation, and raises the accuracy of trained S6 by more than 0.25.",
        unit="pair of equal seeds",
        least_units=5,
        pilot="seeds 0–4 of this grid with the output layer tied (+.56) and untied (+.29), where .5 was asked for",
        thresholds={
            "s6_initial_ratio_0.01_to_0.1": 2.0,
            "gla_s6_initial_ratio_0.01_to_0.1": 2.0,
            "s6_accuracy_gain_0.01_to_0.1": 0.25,
        },
    ),
    model=SHAPE | {"width": 32, "convolution_size": 4, "decay_bias": 0.0, "smallest_step": 0.01, "largest_step": 0.1},
    training=SCHEDULE | {"steps": 800, "batch_size": 24, "rate": 0.007, "seed": [100, 101, 102]},
    measuring=RunMeasurements(every=800, sequences=2),
    tasks=[
        _LONG | {"model": _BOTH | {"key_size": [4, 8, 16, 32, 64]}},
        _LONG | {"model": {"mixer": ["gla", "la"], "key_size": [4, 8, 16, 32, 64]}},
        _SHORT | {"model": _BOTH | {"key_size": [4, 8, 16]}},
        _SHORT | {"model": {"mixer": ["gla", "la"], "key_size": [4, 8, 16]}},
        _LONG | {"model": _BOTH | {"key_size": 64}, "training": {"steps": 0} | _MORE_SEEDS},
        _SHORT | {"model": _S6 | {"key_size": 16}, "training": _MORE_SEEDS},
        _LONG
        | {"model": _BOTH | {"key_size": [4, 16, 64], "smallest_step": 0.001}, "training": {"steps": 0, "seed": 100}},
        _SHORT | {"model": _S6 | {"key_size": 16, "smallest_step": 0.001}},
        _SHORT | {"intervention": "measured_start", "model": {"mixer": "s6", "key_size": 16}},
    ],
)

# Four minutes of a core: the largest states of the record with new seeds, enough for its verdict, not for its curves.
LAPTOP = dataclasses.replace(
    RECORD,
    training=RECORD.training | {"seed": [*range(300, 305)]},
    tasks=[_LONG | {"model": _BOTH | {"key_size": 64}}, _SHORT | {"model": _S6 | {"key_size": 16}}],
)

S6_KINDS = ("s6", "gla-s6")
"""The mixers whose rates start at 1 … n, or with the factor at 1/n … n/n."""

_AFTER_THE_START = tuple(field.name for field in dataclasses.fields(TrainingConfig) if field.name != "seed")
"""Settings on which an untrained model does not depend: however it is trained later, its first ESS is the same."""

CAVEATS = (
    "How much the factor gives depends on where the step sizes start: the slower they are, the longer the memory is "
    "even without it. The claim is for the first range of steps in the grid; the others are given as controls.",
    "The factor changes the rates at the start only, and training is free to change them afterwards. That ESS at "
    "initialisation goes with what is learned is shown for these decays, not in general: between models whose decays "
    "start alike, it says little about the accuracy that is reached.",
    "ESS is a mean over all positions, and near both ends of a sequence no ESS can reach n: at the largest n the mean "
    "ceiling is well below it, for every mixer. In the middle of the sequence the differences are larger.",
    "Accuracies are means of few seeds of a small model at one learning rate, to which S6 is sensitive: at 2e-3 and "
    "1e-2 it did not learn the task. Intervals are Student's, over pairs of equal seeds.",
)


def steps_of(run: FinalRun) -> tuple[float, float]:
    """The range in which the step sizes start; zeros for a mixer without them."""
    model = run.settings["model"]
    return (model["smallest_step"], model["largest_step"]) if run.mixer in S6_KINDS else (0.0, 0.0)


def start_of(run: FinalRun) -> str:
    """Start of the decays, in words; runs of equal starts differ in state size, task, rate and seed."""
    words = [run.mixer]
    if run.mixer in S6_KINDS:
        smallest, largest = steps_of(run)
        name = f"{run.mixer} normalised" if _normalised(run) else run.mixer
        words = [name, f"steps {smallest:g} to {largest:g}"]
    return ", ".join([*words, *([] if run.intervention == "none" else [run.intervention])])


def _normalised(run: FinalRun) -> bool:
    return run.settings["model"]["normalised"]


def _gains(runs: Iterable[FinalRun], value: Callable[[FinalRun], float], *varied: str) -> Numbers:
    """Increase of a value by the factor at the largest n that has both, in pairs of equal seeds."""
    groups = grouped(runs, lambda run: (run.key_size, run.length, _normalised(run)))
    # At the longest sequences that have it.
    both = [key[:2] for key in groups if (*key[:2], not key[2]) in groups]
    if not both:
        return np.array([])
    before, after = (groups[*max(both), normalised] for normalised in (False, True))
    return paired_differences(before, after, "normalised", *varied, value=value)


@study("initialisation")
class Initialisation(Study):
    """The study of initialisation."""

    presets: ClassVar = {"smoke": SMOKE, "laptop": LAPTOP, "record": RECORD}
    caveats = CAVEATS
    panels = tuple(
        Panel("n", y, mark="start", lines=True) for y in ("ESS at initialisation", "ESS after training", "accuracy")
    )

    def analyse(self, table: StudyTable, findings: Findings) -> None:
        """Figures of the factor at the largest states of each range of steps."""
        ranges = list(dict.fromkeys(steps_of(run) for run in table.runs if run.mixer in S6_KINDS))
        for steps, mixer in product(ranges, S6_KINDS):
            kind = (mixer, steps, "none")
            own = [run for run in table.runs if (run.mixer, steps_of(run), run.intervention) == kind]
            ratios = np.exp(_gains(own, lambda run: math.log(run.initial_ess), *_AFTER_THE_START))
            gains = _gains([run for run in own if run.trained], lambda run: run.accuracy)
            name = mixer.replace("-", "_") if steps == ranges[0] else f"control_{mixer.replace('-', '_')}"
            for figure, values in (("initial_ratio", ratios), ("accuracy_gain", gains)):
                findings.add(f"{name}_{figure}_{steps[0]:g}_to_{steps[1]:g}", of_mean(values))

    def records(self, table: StudyTable) -> list[Row]:
        """A record for each run, in a block for each length."""
        records = list[Row]()
        for run in table.runs:
            start: Row = {"row": f"L = {run.length}", "mixer": run.mixer, "start": start_of(run), "n": run.key_size}
            learned: Row = {"ESS after training": run.ess, "accuracy": run.accuracy} if run.trained else {}
            records.append({**start, "ESS at initialisation": run.initial_ess, **learned})
        return records
