"""Where among gated layers should attention stand, and does ESS show it early?

Parnichkun et al., "Quantifying Memory Utilization with Effective State-Size", ICML 2025, arXiv 2504.19561, compare
hybrids by the ESS of their layers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import ClassVar

import altair as alt
import numpy as np

from statesize.lab.studies.engine.charts import chart, mean_lines, points, strip
from statesize.lab.studies.engine.conclusion import Findings
from statesize.lab.studies.engine.grid import SCHEDULE, SHAPE, Grid, RunMeasurements, smoke
from statesize.lab.studies.engine.statistics import (
    Indices,
    Numbers,
    Prepare,
    correlation_evidence,
    mean,
    numbers,
    of_mean,
    ranked,
    ranks,
    within_cells,
)
from statesize.lab.studies.engine.study import Study, study
from statesize.lab.studies.engine.table import FinalRun, Row, StudyTable, grouped, numbered, paired_differences
from statesize.lab.studies.engine.training import layer_column
from statesize.lab.studies.engine.verdicts import Claim

SMOKE = smoke([{"pairs": 4, "model": {"mixer": ["gla,gla", "sa,gla", "gla,sa"], "key_size": 4, "layers": 2}}])

PLACEMENTS = [
    ",".join("sa" if layer in chosen else "gla" for layer in range(6))
    for count in (1, 2, 3)
    for chosen in combinations(range(6), count)
]
"""One, two and three attention layers in all places of six."""

RECORD = Grid(
    claim=Claim(
        statement=(
            "After 10 % of training, the ESS of the attention layers (relative_0.01) ranks placements with as "
            "many of them by their accuracy at the end."
        ),
        unit="first place of attention",
        least_units=6,
        pilot=(
            "36 runs with seed 200 of four placements in four layers, 55 runs with seeds 0–4 of the laptop grid, "
            "where this was one of seven looks and gave .64 with cells as units, and 14 placements with seed 0 of"
            " this grid, which chose its size and steps"
        ),
        thresholds={"early_attention_spearman_inside": 0.0},
    ),
    model=SHAPE | {"mixer": PLACEMENTS, "key_size": 8, "width": 32, "layers": 6, "decay_bias": 0.0},
    training=SCHEDULE | {"steps": 400, "batch_size": 32, "rate": 0.006, "seed": [300, 301]},
    measuring=RunMeasurements(every=40, sequences=4),
    tasks=[{"name": "mqar", "pairs": 16, "length": 64, "vocabulary_size": 64}],
)

CAVEATS = (
    "Which placement wins depends on the task, the size and the number of steps, of which there is one each. In the "
    "presets, short convolutions before every mixer let a single attention layer find the value beside a key.",
    "The cache of attention grows with the sequence, so its ESS may exceed n, and the number of attention layers alone "
    "moves an average over layers. The claim is therefore also tested among placements with as many of them.",
    "Placements with attention in the same first layer are alike: intervals leave out all of them at a time. The "
    "difference between the two best is of a winner that was chosen after the fact.",
    "Figures for other predictors look at the same runs again: they are hypotheses for another grid, not findings of "
    "this one.",
)

EARLY = 0.1
"""The share of training after which ESS should predict the outcome."""

ATTENTION = "sa"
"""The mixer that is placed among the others."""

CLAIMED = "early_attention"
"""The predictor of the claim."""


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
        return tuple(pattern * (self.run.settings["model"]["layers"] // len(pattern)))

    @property
    def placement(self) -> str:
        """All layers, such as "gla,sa,gla,gla"."""
        return ",".join(self.layers)

    @cached_property
    def attention(self) -> tuple[int, ...]:
        """The layers that are attention."""
        return tuple(layer for layer, mixer in enumerate(self.layers) if mixer == ATTENTION)

    def ess(self, row: Row, layers: Iterable[int]) -> float:
        """The mean ESS of some layers in a row of the run; NaN without any."""
        return mean(row[layer_column(self.run.metric, layer)] for layer in layers)


def placed_runs(table: StudyTable) -> list[PlacedRun]:
    """The runs that did not diverge, with their early measurements."""
    trained = grouped((row for row in table.own_rows if float(row["step"]) > 0), lambda row: row["run"])
    placed: list[PlacedRun] = []
    for run in table.runs:
        measured = trained.get(run.last["run"], [run.last])
        early = [row for row in measured if float(row["step"]) >= EARLY * float(run.last["step"])]
        over_training = mean(row["accuracy"] for row in measured)
        placed.append(PlacedRun(run, min(early, key=lambda row: float(row["step"])), over_training))
    return placed


def by_accuracy(runs: Sequence[PlacedRun]) -> list[tuple[str, list[PlacedRun]]]:
    """The placements with their runs, the most accurate first; of those that end alike, the one that learns sooner."""

    def rank(one: tuple[str, list[PlacedRun]]) -> tuple[float, float]:
        return mean(placed.run.accuracy for placed in one[1]), mean(placed.over_training for placed in one[1])

    return sorted(grouped(runs, lambda placed: placed.placement).items(), key=rank, reverse=True)


PREDICTORS: dict[str, Callable[[PlacedRun], float]] = {
    "early": lambda placed: float(placed.early[placed.run.metric]),
    "early_entropy": lambda placed: float(placed.early["entropy"]),
    CLAIMED: lambda placed: placed.ess(placed.early, placed.attention),
    "control_initial_attention": lambda placed: placed.ess(placed.run.first, placed.attention),
    "control_place": lambda placed: -mean(placed.attention),
    "control_early_accuracy": lambda placed: float(placed.early["accuracy"]),
}
"""What is known of a run after a tenth of its training; controls do without the ESS then."""


def _add_foresights(runs: Sequence[PlacedRun], findings: Findings) -> None:
    """How what is known early goes with final accuracy, by ranks, over the runs that have attention."""
    accuracy = numbers(placed.run.accuracy for placed in runs)
    early = {name: numbers(map(known, runs)) for name, known in PREDICTORS.items()}
    settings = numbered([placed.run.settings_without("mixer", "seed") for placed in runs])
    counts = numbered([(placed.run.settings_without("mixer", "seed"), len(placed.attention)) for placed in runs])
    places = numbered([placed.attention[0] for placed in runs])
    first_places = numbered([(len(placed.attention), placed.attention[0]) for placed in runs])
    placements = numbered([placed.placement for placed in runs])

    def inside(values: Numbers, rows: Indices) -> Numbers:
        """Ranks less their mean over runs of one setting with as many attention layers."""
        return within_cells(ranks(values[rows]), counts[rows])

    def beyond(groups: Indices) -> Prepare:
        """What settings and groups of placements leave of ranks."""

        def left(values: Numbers, rows: Indices) -> Numbers:
            effects = np.hstack([known[rows, None] == np.unique(known) for known in (settings, groups)]).astype(float)
            own = ranks(values[rows])
            return own - effects @ np.linalg.lstsq(effects, own)[0]

        return left

    for name, known in early.items():
        findings.add(f"{name}_spearman", correlation_evidence(known, accuracy, places, prepare=ranked))
        findings.add(f"{name}_spearman_inside", correlation_evidence(known, accuracy, places, prepare=inside))
    for name, units, prepare in (
        ("spearman_inside_by_placement", placements, inside),
        ("beyond_first_place", places, beyond(first_places)),
        ("beyond_placement", places, beyond(placements)),
    ):
        findings.add(f"{CLAIMED}_{name}", correlation_evidence(early[CLAIMED], accuracy, units, prepare=prepare))


@study("hybrids")
class Hybrids(Study):
    """The study of hybrids."""

    presets: ClassVar = {"smoke": SMOKE, "record": RECORD}
    caveats = CAVEATS

    def analyse(self, table: StudyTable, findings: Findings) -> None:
        """Which placement of attention wins, and what is known of that early."""
        runs = placed_runs(table)
        placements = by_accuracy(runs)
        if len(placements) > 1:
            # Trial by trial.
            after, before = ([placed.run for placed in members] for _, members in placements[:2])
            findings.add("best_less_second", of_mean(paired_differences(before, after, "mixer", "layers")))
        _add_foresights([placed for placed in runs if placed.attention], findings)

    def draw(self, table: StudyTable) -> alt.VConcatChart:
        """Accuracy and ESS per layer of each placement, accuracy over training, early ESS against final accuracy."""
        runs = {str(one.run.last["run"]): one for _, members in by_accuracy(placed_runs(table)) for one in members}
        first = "first attention"
        ends = {
            name: {"placement": placed.placement, first: str(placed.attention[0]) if placed.attention else "none"}
            | {"attention layers": len(placed.attention), "seed": placed.run.seed, "accuracy": placed.run.accuracy}
            | {"early ESS": placed.ess(placed.early, placed.attention)}
            for name, placed in runs.items()
        }
        layers = [
            {"placement": placed.placement, "layer": layer, "ESS": placed.ess(placed.run.last, [layer])}
            for placed in runs.values()
            for layer in range(len(placed.layers))
        ]
        through = [
            ends[str(row["run"])] | {"step": row["step"], "accuracy": row["accuracy"]}
            for row in table.own_rows
            if row["run"] in ends
        ]
        last = list(ends.values())
        accuracy = strip(
            last, "Accuracy of each placement: runs and their mean", "placement", "accuracy", "attention layers"
        )
        cells = chart(layers, f"ESS of the layers at the end ({table.metric})").encode(
            x=alt.X("layer:O", axis=alt.Axis(labelAngle=0)), y=alt.Y("placement:N", title=None, sort=None)
        )
        # The lighter half, on which black numbers can be read.
        blues = alt.Scale(scheme=alt.SchemeParams("blues", extent=[0, 0.5]))
        ess = cells.mark_rect().encode(color=alt.Color("mean(ESS):Q", title="ESS", scale=blues))
        values = cells.mark_text().encode(text=alt.Text("mean(ESS):Q", format=".1f"))
        lines = mean_lines(through, "Accuracy over training, means", "step", "accuracy", first, detail="placement:N")
        title = f"What ESS shows early: that of the attention ({table.metric})"
        early = points(last, title, "early ESS", "accuracy", first)
        by_placement = alt.hconcat(accuracy, alt.layer(ess, values).properties(height=accuracy.height))
        # Each chart has colours and a legend of its own.
        drawn = by_placement.resolve_scale(color="independent"), alt.hconcat(lines, early)
        return alt.vconcat(*drawn).resolve_scale(color="independent")
