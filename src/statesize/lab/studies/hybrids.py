"""The study of hybrids: where among gated layers should attention stand, and does ESS show it early?

Parnichkun et al., "Quantifying Memory Utilization with Effective State-Size", ICML 2025, arXiv 2504.19561, compare
hybrids by the ESS of their layers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import altair as alt
import numpy as np
from numpy.typing import NDArray

from statesize.lab.studies.engine.charts import SIDE, chart_data, palette, percent, points, rounded
from statesize.lab.studies.engine.conclusion import Conclusion, Findings
from statesize.lab.studies.engine.final import (
    FinalRun,
    final_runs,
    grid_findings,
    grouped,
    numbered,
    paired_differences,
)
from statesize.lab.studies.engine.study import Study
from statesize.lab.studies.engine.table import Row
from statesize.lab.studies.engine.training import layer_column
from statesize.lab.studies.statistics import (
    Numbers,
    jackknife,
    mean,
    of_mean,
    pearson,
    ranks,
    spearman,
    spearman_evidence,
    within_cells,
)
from statesize.lab.studies.verdicts import Claim
from statesize.measurement.statistics import Interval

# Seconds: to see that everything works. Nothing is learned.
SMOKE = """\
study = "hybrids"

[model]
mixer = ["gla,gla", "sa,gla", "gla,sa"]
key_size = 4
width = 16
heads = 2
layers = 2
mlp_factor = 2
convolution_size = 2
decay_bias = 0.0

[training]
steps = 20
batch_size = 8
rate = 6e-3
weight_decay = 0.0
seed = [0, 1]

[measuring]
every = 10
sequences = 4

[[task]]
name = "mqar"
pairs = 4
length = 16
vocabulary_size = 16
held_out_sequences = 32
"""

RECORD = """\
# On record in docs/results/hybrids: one, two and three attention layers in all places of six, half an hour of one core.
study = "hybrids"

# Statement and threshold were fixed before any run with these seeds, which the pilot did not have. The unit was changed
# after the runs, on 24 November 2026: it was the placement (41 of them, by which the claim holds), but those with one
# first place of attention are alike.
[claim]
statement = "After 10 % of training, the ESS of the attention layers (relative_0.01) ranks placements with as many of them by their accuracy at the end."
unit = "first place of attention"
least_units = 6
pilot = "36 runs with seed 200 of four placements in four layers, 55 runs with seeds 0–4 of the laptop grid, where this was one of seven looks and gave .64 with cells as units, and 14 placements with seed 0 of this grid, which chose its size and steps"
[claim.thresholds]
"early_attention_spearman_inside" = 0.0

[model]
mixer = [
  "sa,gla,gla,gla,gla,gla", "gla,sa,gla,gla,gla,gla", "gla,gla,sa,gla,gla,gla", "gla,gla,gla,sa,gla,gla",
  "gla,gla,gla,gla,sa,gla", "gla,gla,gla,gla,gla,sa",
  "sa,sa,gla,gla,gla,gla", "sa,gla,sa,gla,gla,gla", "sa,gla,gla,sa,gla,gla", "sa,gla,gla,gla,sa,gla",
  "sa,gla,gla,gla,gla,sa", "gla,sa,sa,gla,gla,gla", "gla,sa,gla,sa,gla,gla", "gla,sa,gla,gla,sa,gla",
  "gla,sa,gla,gla,gla,sa", "gla,gla,sa,sa,gla,gla", "gla,gla,sa,gla,sa,gla", "gla,gla,sa,gla,gla,sa",
  "gla,gla,gla,sa,sa,gla", "gla,gla,gla,sa,gla,sa", "gla,gla,gla,gla,sa,sa",
  "sa,sa,sa,gla,gla,gla", "sa,sa,gla,sa,gla,gla", "sa,sa,gla,gla,sa,gla", "sa,sa,gla,gla,gla,sa",
  "sa,gla,sa,sa,gla,gla", "sa,gla,sa,gla,sa,gla", "sa,gla,sa,gla,gla,sa", "sa,gla,gla,sa,sa,gla",
  "sa,gla,gla,sa,gla,sa", "sa,gla,gla,gla,sa,sa", "gla,sa,sa,sa,gla,gla", "gla,sa,sa,gla,sa,gla",
  "gla,sa,sa,gla,gla,sa", "gla,sa,gla,sa,sa,gla", "gla,sa,gla,sa,gla,sa", "gla,sa,gla,gla,sa,sa",
  "gla,gla,sa,sa,sa,gla", "gla,gla,sa,sa,gla,sa", "gla,gla,sa,gla,sa,sa", "gla,gla,gla,sa,sa,sa",
]
key_size = 8
width = 32
heads = 2
layers = 6
mlp_factor = 2
convolution_size = 2
decay_bias = 0.0

[training]
steps = 400
batch_size = 32
rate = 6e-3
warm_up = 0.1
weight_decay = 0.0
clip = 1.0
seed = [300, 301]

[measuring]
every = 40
sequences = 4

[[task]]
name = "mqar"
pairs = 16
length = 64
vocabulary_size = 64
"""  # noqa: E501

CAVEATS = (
    "Which placement wins depends on the task, the size and the number of steps, of which there is one each. In the "
    "presets, short convolutions before every mixer let a single attention layer find the value beside a key.",
    "The cache of attention grows with the sequence, so its ESS may exceed n, and the number of attention layers alone "
    "moves an average over layers. The claim is therefore also tested among placements with as many of them.",
    "Placements with attention in the same first layer are alike: intervals leave out all of them at a time. The "
    "difference between the two best is of a winner that was chosen after the fact.",
    "Figures for single layers, for the attention and for the other layers look at the same runs several times: they "
    "are hypotheses for another grid, not findings of this one.",
)


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


CLAIMED = "early_attention"
"""The predictor of the claim."""


def _numbers(
    runs: Sequence[PlacedRun], predictor: Callable[[PlacedRun], float]
) -> tuple[list[PlacedRun], Numbers, Numbers]:
    """The runs whose predictor is not NaN, their predictors (N,) and their final accuracies (N,)."""
    runs = [run for run in runs if not math.isnan(predictor(run))]
    return runs, np.array([predictor(run) for run in runs]), _accuracies(runs)


def foresight(
    runs: Sequence[PlacedRun],
    name: str,
    findings: Findings,
    predictor: Callable[[PlacedRun], float],
    *,
    over_training: bool = False,
) -> tuple[Interval, Interval]:
    """Spearman's correlation of a predictor with accuracy: over all runs, and among runs that differ in placement."""
    runs, early, later = _numbers(runs, predictor)
    if over_training:
        later = np.array([run.over_training for run in runs])
    groups = numbered([(run.setting, run.attention) for run in runs])
    places = numbered([run.first_place for run in runs])

    def inside(rows: NDArray[np.int64]) -> float:
        x, y = (ranks(values[rows]) for values in (early, later))
        return pearson(within_cells(x, groups[rows]), within_cells(y, groups[rows]))

    if name == CLAIMED:
        placements = numbered([run.placement for run in runs])
        findings.add(f"{name}_spearman_inside_by_placement", jackknife(inside, placements, correlation=True))
    return (
        findings.add(f"{name}_spearman", spearman_evidence(early, later, places)),
        findings.add(f"{name}_spearman_inside", jackknife(inside, places, correlation=True)),
    )


def _add_beyond(runs: Sequence[PlacedRun], metric: str, findings: Findings) -> None:
    """What the early ESS of the attention predicts when its first layer, or all its layers, are known."""
    runs, early, later = _numbers(runs, lambda placed: mean_ess(placed, placed.early, metric, attention=True))
    placements, settings = numbered([run.placement for run in runs]), numbered([run.setting for run in runs])
    first = numbered([(placed.attention, placed.first_place) for placed in runs])
    places = numbered([placed.first_place for placed in runs])
    said: list[Interval] = []
    for name, groups in (("first_place", first), ("placement", placements)):

        def left(rows: NDArray[np.int64], groups: NDArray[np.int64] = groups) -> float:
            effects = np.hstack([known[rows, None] == np.unique(known) for known in (settings, groups)]).astype(float)
            x, y = (ranks(values[rows]) for values in (early, later))
            return pearson(*(values - effects @ np.linalg.lstsq(effects, values)[0] for values in (x, y)))

        said.append(findings.add(f"early_attention_beyond_{name}", jackknife(left, places, correlation=True)))
    findings.statements.append(
        f"Of that, {said[0]} is left among hybrids whose first attention layer stands in the same place, and {said[1]} "
        "among runs of one placement (means taken off the ranks)."
    )


def conclude(rows: Sequence[Row], metric: str, claim: Claim | None = None) -> Conclusion:
    """What a grid says about placements of attention.

    Args:
        rows: All rows of the study.
        metric: Column of the metric for which the claim is made, named before the runs were done.
        claim: The claim that was fixed before the runs, or None.

    Returns:
        The conclusion.
    """
    runs, findings = placed_runs(rows), grid_findings(rows)
    placements = _by_accuracy(runs)
    for placement, members in placements.items():
        _add_placement(placement, members, metric, findings)
    if len(placements) > 1:
        _add_winner(placements, findings)
    _add_foresights(runs, metric, findings)
    if runs:
        shares = sorted({float(placed.early["step"]) / float(placed.run.last["step"]) for placed in runs})
        findings.statements.append(f"Early is after {' and '.join(f'{share:.0%}' for share in shares)} of the steps.")
    return findings.conclusion("hybrids", claim, CAVEATS)


def _by_accuracy(runs: Sequence[PlacedRun]) -> dict[str, list[PlacedRun]]:
    """The runs of each placement, the most accurate first; of those that end alike, the one that learns sooner."""
    groups = grouped(runs, lambda placed: placed.placement)
    ranks = {name: (_accuracies(members).mean(), _over_training(members)) for name, members in groups.items()}
    return {name: groups[name] for name in sorted(groups, key=ranks.__getitem__, reverse=True)}


def _over_training(members: Sequence[PlacedRun]) -> float:
    return mean(run.over_training for run in members)


def _accuracies(members: Sequence[PlacedRun]) -> Numbers:
    return np.array([placed.run.accuracy for placed in members])


def _add_placement(placement: str, members: Sequence[PlacedRun], metric: str, findings: Findings) -> None:
    name, accuracies = placement.replace(",", "_").replace("-", "_"), _accuracies(members)
    columns = [layer_column(metric, layer) for layer in range(len(members[0].layers))]
    layers = [mean(placed.run.last[column] for placed in members) for column in columns]
    findings.add(f"{name}_accuracy", of_mean(accuracies))
    findings.figures[f"{name}_accuracy_over_training"] = _over_training(members)
    findings.figures |= {f"{name}_ess_layer_{layer}": ess for layer, ess in enumerate(layers)}
    findings.statements.append(
        f"{placement}: accuracy {accuracies.mean():.2f} ({len(members)} runs, {accuracies.min():.2f} to "
        f"{accuracies.max():.2f}), {_over_training(members):.2f} on average over training; ESS of the layers "
        f"({metric}) {', '.join(f'{ess:.1f}' for ess in layers)}."
    )


def _add_winner(placements: dict[str, list[PlacedRun]], findings: Findings) -> None:
    """The gain of the best placement on the second, trial by trial."""
    best, second, *_ = placements
    runs, others = ([placed.run for placed in placements[name]] for name in (best, second))
    gain = findings.add("best_less_second", of_mean(paired_differences(others, runs, "mixer")))
    findings.statements.append(f"{best} comes first, before {second} by {gain}.")


def _add_foresights(runs: Sequence[PlacedRun], metric: str, findings: Findings) -> None:
    """The correlation of each early quantity with accuracy."""
    predictors: dict[str, tuple[str, Callable[[PlacedRun], float]]] = {
        "early": (f"early ESS ({metric})", lambda placed: number(placed.early, metric)),
        "early_entropy": ("early ESS (entropy)", lambda placed: number(placed.early, "entropy")),
        "early_gated": ("early ESS of the other layers", lambda run: mean_ess(run, run.early, metric, attention=False)),
        CLAIMED: ("early ESS of the attention", lambda run: mean_ess(run, run.early, metric, attention=True)),
        "control_initial_attention": (
            "the control, ESS of the attention at initialisation,",
            lambda run: mean_ess(run, run.run.first, metric, attention=True),
        ),
        "control_initial": ("the control, ESS at initialisation,", lambda placed: number(placed.run.first, metric)),
        "control_place": (
            "the control, how early the attention stands,",
            lambda placed: -mean(placed.attention_layers),
        ),
        "control_early_accuracy": ("the control, early accuracy,", lambda placed: number(placed.early, "accuracy")),
    }
    for name, (words, early) in predictors.items():
        over_all, inside = foresight(runs, name, findings, early)
        findings.statements.append(
            f"Spearman of {words} with final accuracy: {over_all}; in one setting, with as many attention layers, "
            f"{inside}."
        )
        if name == CLAIMED:
            _add_beyond(runs, metric, findings)
    over_all, inside = foresight(runs, "early_over_training", findings, predictors["early"][1], over_training=True)
    findings.statements.append(
        f"Spearman of {predictors['early'][0]} with the accuracy averaged over training, which tells those apart that "
        f"end alike: {over_all}; in one setting, with as many attention layers, {inside}."
    )
    attention = spearman(*_numbers(runs, lambda run: float(run.attention))[1:])
    layers = min((len(run.layers) for run in runs), default=0)
    columns = [layer_column(metric, layer) for layer in range(layers)]
    single = [spearman(*_numbers(runs, lambda run, name=name: number(run.early, name))[1:]) for name in columns]
    findings.figures["control_attention_spearman"] = attention
    findings.figures |= {f"early_layer_{layer}_spearman": value for layer, value in enumerate(single)}
    findings.statements.append(
        "Spearman with final accuracy over all runs, without intervals: early ESS of each layer "
        f"{', '.join(f'{value:.2f}' for value in single)}; the control, the number of attention layers, "
        f"{attention:.2f}."
    )


_FIRST = palette("first", "First attention layer")
_TOOLTIP = ["placement:N", "seed:Q", "rate:Q", rounded("accuracy", ".3f"), "early:Q"]


def charts(rows: Sequence[Row], metric: str) -> alt.VConcatChart:
    """Accuracy and ESS per layer of each placement, accuracy over training, and early ESS against final accuracy."""
    runs = placed_runs(rows)
    finals = chart_data(_shown(placed, metric) for placed in runs)
    order = alt.EncodingSortField("accuracy", op="mean", order="descending")
    placement = alt.Y("placement:N", title="Layers", sort=order, axis=alt.Axis(labelLimit=300))
    accuracy = alt.X("accuracy:Q", title="Accuracy", axis=percent())
    base = alt.Chart(finals, title="Accuracy of each placement: runs and their mean").encode(y=placement)
    single = base.mark_point(filled=True, opacity=0.6).encode(
        x=accuracy, color=palette("attention", "Attention layers"), tooltip=_TOOLTIP
    )
    means = base.mark_tick(thickness=3, color="#808080").encode(x="mean(accuracy):Q")
    layers = chart_data(
        _shown(placed, metric) | {"layer": layer, "ess": placed.run.last[layer_column(metric, layer)]}
        for placed in runs
        for layer in range(len(placed.layers))
    )
    cells = alt.Chart(layers, title=f"ESS of the layers at the end ({metric})").encode(
        x=alt.X("layer:O", title="Layer", axis=alt.Axis(labelAngle=0)), y=alt.Y("placement:N", title=None, sort=order)
    )
    # The lighter half, on which black numbers can be read.
    blues = alt.Scale(scheme=alt.SchemeParams("blues", extent=[0, 0.5]))
    ess = cells.mark_rect().encode(color=alt.Color("mean(ess):Q", title="ESS", scale=blues))
    numbers = cells.mark_text().encode(text=alt.Text("mean(ess):Q", format=".1f"))
    early = points(
        finals,
        "What ESS shows early",
        alt.X("early:Q", title=f"ESS of the attention after 10 % of training ({metric})", scale=alt.Scale(zero=False)),
        alt.Y("accuracy:Q", title="Accuracy at the end", axis=percent()),
        _FIRST,
        _TOOLTIP,
    )
    height = max(SIDE, 14 * len({placed.placement for placed in runs}))  # pixels of a placement, where there are many
    return alt.vconcat(
        alt.hconcat(
            (single + means).properties(width=SIDE, height=height),
            (ess + numbers).properties(width=SIDE, height=height),
        ).resolve_scale(color="independent"),
        alt.hconcat(_lines_over_training(rows, runs), early),
    ).resolve_scale(color="independent")


def _lines_over_training(rows: Sequence[Row], runs: Sequence[PlacedRun]) -> alt.Chart:
    """Mean accuracy of each placement by step."""
    placements = {placed.run.last["run"]: _place(placed) for placed in runs}
    data = chart_data(
        {"step": row["step"], "accuracy": row["accuracy"]} | placements[row["run"]]
        for row in rows
        if row["run"] in placements
    )
    chart = alt.Chart(data, title="Accuracy over training, means").mark_line()
    return chart.encode(
        x=alt.X("step:Q", title="Step"),
        y=alt.Y("mean(accuracy):Q", title="Accuracy", axis=percent()),
        color=_FIRST,
        detail="placement:N",
        tooltip=["placement:N", "step:Q", rounded("mean(accuracy)", ".3f")],
    ).properties(width=SIDE, height=SIDE)


def _shown(placed: PlacedRun, metric: str) -> dict[str, object]:
    return _place(placed) | {
        "attention": placed.attention,
        "rate": placed.run.rate,
        "seed": placed.run.seed,
        "accuracy": placed.run.accuracy,
        "early": mean_ess(placed, placed.early, metric, attention=True),
    }


def _place(placed: PlacedRun) -> dict[str, object]:
    return {
        "placement": placed.placement,
        "first": "none" if placed.first_place is None else str(placed.first_place),
    }


STUDY = Study(
    name="hybrids",
    presets={"smoke": SMOKE, "record": RECORD},
    conclude=conclude,
    charts=charts,
)
