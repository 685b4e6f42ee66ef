"""Where among gated layers should attention stand, and does ESS show it early?

Parnichkun et al., "Quantifying Memory Utilization with Effective State-Size", ICML 2025, arXiv 2504.19561, compare
hybrids by the ESS of their layers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import combinations
from typing import ClassVar

import numpy as np

from statesize.lab.studies.engine.grid import SCHEDULE, SHAPE, Grid, RunMeasurements, smoke
from statesize.lab.studies.engine.statistics import (
    Indices,
    Numbers,
    correlation_evidence,
    mean,
    numbers,
    ranked,
    within_cells,
)
from statesize.lab.studies.engine.study import Panel, Study, study
from statesize.lab.studies.engine.table import METRIC, FinalRun, Row, StudyTable, grouped, numbered
from statesize.lab.studies.engine.training import layer_column
from statesize.lab.studies.engine.verdicts import Claim, Findings

SMOKE = smoke([{"pairs": 4, "model": {"mixer": ["gla,gla", "sa,gla", "gla,sa"], "key_size": 4, "layers": 2}}])

PLACEMENTS = [
    ",".join("sa" if layer in chosen else "gla" for layer in range(6))
    for count in (1, 2, 3)
    for chosen in combinations(range(6), count)
]
"""One, two and three attention layers in all places of six."""

RECORD = Grid(
    claim=Claim(
        statement="After 10 % of training, the ESS of the attention layers (relative_0.01) ranks placements with as "
        "many of them by their accuracy at the end.",
        unit="first place of attention",
        least_units=6,
        pilot="36 runs with seed 200 of four placements in four layers, 55 runs with seeds 0–4 of the laptop grid, "
        "where this was one of seven looks and gave .64 with cells as units, and 14 placements with seed 0 of"
        " this grid, which chose its size and steps",
        thresholds={"early_attention_spearman_inside": 0.0},
    ),
    model=SHAPE | {"mixer": PLACEMENTS, "key_size": 8, "width": 32, "layers": 6, "decay_bias": 0.0},
    training=SCHEDULE | {"steps": 400, "batch_size": 32, "rate": 0.006, "seed": [300, 301]},
    measuring=RunMeasurements(every=40, sequences=4),
    tasks=[{"name": "mqar", "pairs": 16, "length": 64, "vocabulary_size": 64}],
)

# Four minutes of a core: one layer of attention in each place, with new seeds.
_ONE, _NEW = {"mixer": PLACEMENTS[:6]}, {"seed": [400, 401]}
LAPTOP = replace(RECORD, model=RECORD.model | _ONE, training=RECORD.training | _NEW)

CAVEATS = (
    "Which placement wins depends on the task, the size and the number of steps, of which there is one each. In the "
    "presets, short convolutions before every mixer let a single attention layer find the value beside a key.",
    "The cache of attention grows with the sequence, so its ESS may exceed n, and the number of attention layers alone "
    "moves an average over layers. The claim is therefore also tested among placements with as many of them.",
    "Placements with attention in the same first layer are alike: intervals leave out all of them at a time.",
)

EARLY, ATTENTION, CLAIMED = 0.1, "sa", "early_attention"
"""The share of training after which ESS should predict the outcome, the mixer that is placed, and its predictor."""


def layers_of(run: FinalRun) -> list[str]:
    """The mixer of each layer of a run; those of a pattern repeat."""
    pattern = run.mixer.split(",")
    return pattern * (run.settings["model"]["layers"] // len(pattern))


def attention_of(run: FinalRun) -> list[int]:
    """Its layers that are attention."""
    return [layer for layer, mixer in enumerate(layers_of(run)) if mixer == ATTENTION]


def early_row(run: FinalRun) -> Row:
    """The first measurement of a run after 10 % of its training."""
    return next(row for row in run.trained or [run.last] if float(row["step"]) >= EARLY * float(run.last["step"]))


def _ess_of(run: FinalRun, row: Row, layers: Iterable[int]) -> float:
    """The mean ESS of some layers in a row of a run; NaN without any."""
    return mean(row[layer_column(METRIC, layer)] for layer in layers)


PREDICTORS: dict[str, Callable[[FinalRun], float]] = {
    CLAIMED: lambda run: _ess_of(run, early_row(run), attention_of(run)),
    "control_initial_attention": lambda run: _ess_of(run, run.first, attention_of(run)),
    "control_place": lambda run: -mean(attention_of(run)),
}
"""Quantities of a run after a tenth of its training; controls do without the ESS then."""


@study("hybrids")
class Hybrids(Study):
    """The study of hybrids."""

    presets: ClassVar = {"smoke": SMOKE, "laptop": LAPTOP, "record": RECORD}
    caveats = CAVEATS
    panels = (
        Panel("accuracy", "placement", "attention layers"),
        Panel("ESS", "placement", "layer"),
        Panel("early ESS of attention", "accuracy", "first attention"),
    )

    def analyse(self, table: StudyTable, findings: Findings) -> None:
        """Correlates early quantities with final accuracy, by ranks, over the runs that have attention."""
        runs = [run for run in table.runs if attention_of(run)]
        accuracy = numbers(run.accuracy for run in runs)
        settings = [run.settings_without("mixer", "seed") for run in runs]
        attention = list(map(attention_of, runs))
        places, placements = (numbered(labels) for labels in ([layers[0] for layers in attention], map(str, attention)))
        counts = numbered([(of, len(layers)) for of, layers in zip(settings, attention, strict=True)])
        groups = numbered([(len(layers), layers[0]) for layers in attention])

        def inside(values: Numbers, rows: Indices) -> Numbers:
            """Ranks less their mean over runs of one setting with as many attention layers."""
            return within_cells(ranked(values, rows), counts[rows])

        def beyond_first_place(values: Numbers, rows: Indices) -> Numbers:
            """Residuals of ranks given settings, and groups of placements with one first place."""
            effects = [known[rows, None] == np.unique(known) for known in (numbered(settings), groups)]
            effect, own = np.hstack(effects).astype(float), ranked(values, rows)
            return own - effect @ np.linalg.lstsq(effect, own)[0]

        for name, known in PREDICTORS.items():
            evidence = correlation_evidence(numbers(map(known, runs)), accuracy, places, prepare=inside)
            findings.add(f"{name}_spearman_inside", evidence)
        claimed = numbers(map(PREDICTORS[CLAIMED], runs))
        by_placement = correlation_evidence(claimed, accuracy, placements, prepare=inside)
        beyond = correlation_evidence(claimed, accuracy, places, prepare=beyond_first_place)
        findings.add(f"{CLAIMED}_spearman_inside_by_placement", by_placement)
        findings.add(f"{CLAIMED}_beyond_first_place", beyond)

    def records(self, table: StudyTable) -> list[Row]:
        """A record for each run and each of its layers, those of the best placement first."""
        records, placements = list[Row](), grouped(table.runs, lambda run: ",".join(layers_of(run)))
        best = sorted(placements, key=lambda name: mean(run.accuracy for run in placements[name]), reverse=True)
        for placement, run in ((name, run) for name in best for run in placements[name]):
            attention = attention_of(run)
            end: Row = {"placement": placement, "attention layers": len(attention), "seed": run.seed}
            end |= {"first attention": str(attention[0]) if attention else "none", "accuracy": run.accuracy}
            records.append(end | {"early ESS of attention": _ess_of(run, early_row(run), attention)})
            for layer in range(len(layers_of(run))):
                records.append({"placement": placement, "layer": layer, "ESS": _ess_of(run, run.last, [layer])})
        return records
