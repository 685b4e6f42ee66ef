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

SMOKE = smoke(
    [
        {
            "pairs": 4,
            "model": {"mixer": ["gla,gla", "sa,gla", "gla,sa"], "key_size": 4, "layers": 2},
        },
    ],
)

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
    tasks=[
        {"name": "mqar", "pairs": 16, "length": 64, "vocabulary_size": 64},
    ],
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
        return tuple(pattern[layer % len(pattern)] for layer in range(self.run.settings["model"]["layers"]))

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


def _add_foresights(runs: Sequence[PlacedRun], metric: str, findings: Findings) -> None:
    """How what is known early goes with final accuracy, by ranks, over the runs that have attention."""
    predictors: dict[str, tuple[str, Callable[[PlacedRun], float]]] = {
        "early": (f"early ESS ({metric})", lambda placed: float(placed.early[metric])),
        "early_entropy": ("early entropy-ESS", lambda placed: float(placed.early["entropy"])),
        CLAIMED: ("early ESS of the attention", lambda placed: placed.ess(placed.early, placed.attention)),
        "control_initial_attention": (
            "the control, ESS of the attention at initialisation",
            lambda placed: placed.ess(placed.run.first, placed.attention),
        ),
        "control_place": ("the control, how early the attention stands", lambda placed: -mean(placed.attention)),
        "control_early_accuracy": ("the control, early accuracy", lambda placed: float(placed.early["accuracy"])),
    }
    accuracy = numbers(placed.run.accuracy for placed in runs)
    early = {name: numbers(map(known, runs)) for name, (_, known) in predictors.items()}
    settings = numbered([placed.run.settings_without("mixer", "seed") for placed in runs])
    counts = numbered([(placed.run.settings_without("mixer", "seed"), len(placed.attention)) for placed in runs])
    places = numbered([placed.attention[0] for placed in runs])
    placements = numbered([placed.placement for placed in runs])

    def inside(values: Numbers, rows: Indices) -> Numbers:
        return within_cells(ranks(values[rows]), counts[rows])

    def beyond(groups: Indices) -> Prepare:
        """What settings and groups of placements leave of ranks."""

        def left(values: Numbers, rows: Indices) -> Numbers:
            effects = np.hstack([known[rows, None] == np.unique(known) for known in (settings, groups)]).astype(float)
            own = ranks(values[rows])
            return own - effects @ np.linalg.lstsq(effects, own)[0]

        return left

    for opening, end, prepare in (
        ("Spearman with final accuracy", "spearman", ranked),
        ("The same in one setting, with as many attention layers", "spearman_inside", inside),
    ):
        findings.add_statement(
            opening,
            {
                f"{name}_{end}": (words, correlation_evidence(early[name], accuracy, places, prepare=prepare))
                for name, (words, _) in predictors.items()
            },
        )
    first_places = numbered([(len(placed.attention), placed.attention[0]) for placed in runs])
    claimed = early[CLAIMED]
    findings.add_statement(
        "That of the attention's early ESS",
        {
            f"{CLAIMED}_{name}": (words, correlation_evidence(claimed, accuracy, units, prepare=prepare))
            for name, words, units, prepare in (
                ("spearman_inside_by_placement", "with placements for units", placements, inside),
                ("beyond_first_place", "at an equal first place", places, beyond(first_places)),
                ("beyond_placement", "in one placement", places, beyond(placements)),
            )
        },
    )


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
            (best, winners), (second, others) = placements[:2]
            # Trial by trial.
            before, after = ([placed.run for placed in members] for members in (others, winners))
            gain = findings.add("best_less_second", of_mean(paired_differences(before, after, "mixer", "layers")))
            accuracy = mean(placed.run.accuracy for placed in winners)
            findings.statements.append(f"{best} comes first ({accuracy:.2f}), before {second} by {gain}.")
        _add_foresights([placed for placed in runs if placed.attention], table.metric, findings)
        shares = sorted({float(placed.early["step"]) / float(placed.run.last["step"]) for placed in runs})
        findings.statements += [f"Early is after {share:.0%} of the steps." for share in shares]

    def draw(self, table: StudyTable) -> alt.VConcatChart:
        """Accuracy and ESS per layer of each placement, accuracy over training, early ESS against final accuracy."""
        runs = {str(one.run.last["run"]): one for _, members in by_accuracy(placed_runs(table)) for one in members}
        ends = {
            name: {
                "placement": placed.placement,
                "first attention": str(placed.attention[0]) if placed.attention else "none",
                "attention layers": len(placed.attention),
                "seed": placed.run.seed,
                "early ESS": placed.ess(placed.early, placed.attention),
                "accuracy": placed.run.accuracy,
            }
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
        title = "Accuracy of each placement: runs and their mean"
        accuracy = strip(last, title, "placement", "accuracy", "attention layers")
        cells = chart(layers, f"ESS of the layers at the end ({table.metric})").encode(
            x=alt.X("layer:O", axis=alt.Axis(labelAngle=0)), y=alt.Y("placement:N", title=None, sort=None)
        )
        # The lighter half, on which black numbers can be read.
        blues = alt.Scale(scheme=alt.SchemeParams("blues", extent=[0, 0.5]))
        ess = cells.mark_rect().encode(color=alt.Color("mean(ESS):Q", title="ESS", scale=blues))
        values = cells.mark_text().encode(text=alt.Text("mean(ESS):Q", format=".1f"))
        title, first = "Accuracy over training, means", "first attention"
        lines = mean_lines(through, title, "step", "accuracy", first, detail="placement:N")
        title = f"What ESS shows early: that of the attention ({table.metric})"
        early = points(last, title, "early ESS", "accuracy", first)
        by_placement = alt.hconcat(accuracy, alt.layer(ess, values).properties(height=accuracy.height))
        # Each chart has colours and a legend of its own.
        drawn = by_placement.resolve_scale(color="independent"), alt.hconcat(lines, early)
        return alt.vconcat(*drawn).resolve_scale(color="independent")
