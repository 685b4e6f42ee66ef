"""The study of hybrids: where among gated layers should attention stand, and does ESS show it early?

Parnichkun et al., "Quantifying Memory Utilization with Effective State-Size", ICML 2025, arXiv 2504.19561, compare
hybrids by the ESS of their layers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import altair as alt
import numpy as np

from statesize.lab.studies.engine.charts import chart, mean_lines, points, strip
from statesize.lab.studies.engine.conclusion import Findings
from statesize.lab.studies.engine.final import FinalRun, StudyTable, grouped, numbered, paired_differences
from statesize.lab.studies.engine.study import Study
from statesize.lab.studies.engine.table import Row
from statesize.lab.studies.engine.training import layer_column
from statesize.lab.studies.statistics import (
    Indices,
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

    @property
    def first_place(self) -> int | None:
        """The first layer that is attention; None without any."""
        return min(self.attention, default=None)

    def ess(self, row: Row, layers: Iterable[int]) -> float:
        """The mean ESS of some layers in a row of the run; NaN without any."""
        return mean(row[layer_column(self.run.metric, layer)] for layer in layers)


def placed_runs(table: StudyTable) -> list[PlacedRun]:
    """The runs that did not diverge, with their early measurements."""
    trained = grouped((row for row in table.rows if float(row["step"]) > 0), lambda row: row["run"])
    placed: list[PlacedRun] = []
    for run in table.runs:
        measured = trained.get(run.last["run"], [run.last])
        early = [row for row in measured if float(row["step"]) >= EARLY * float(run.last["step"])]
        over_training = mean(row["accuracy"] for row in measured)
        placed.append(PlacedRun(run, min(early, key=lambda row: float(row["step"])), over_training))
    return placed


def analyse(table: StudyTable, findings: Findings) -> None:
    """How accurate each placement of attention is, and what is known of that early."""
    runs = placed_runs(table)
    placements = _by_accuracy(runs)
    for placement, members in placements.items():
        _add_placement(placement, members, table.metric, findings)
    if len(placements) > 1:
        best, second, *_ = placements
        after, before = ([placed.run for placed in placements[name]] for name in (best, second))
        # Trial by trial.
        gain = findings.add("best_less_second", of_mean(paired_differences(before, after, "mixer")))
        findings.statements.append(f"{best} comes first, before {second} by {gain}.")
    _add_foresights(runs, table.metric, findings)
    if runs:
        shares = sorted({float(placed.early["step"]) / float(placed.run.last["step"]) for placed in runs})
        findings.statements.append(f"Early is after {' and '.join(f'{share:.0%}' for share in shares)} of the steps.")


def _by_accuracy(runs: Sequence[PlacedRun]) -> dict[str, list[PlacedRun]]:
    """The runs of each placement, the most accurate first; of those that end alike, the one that learns sooner."""
    groups = grouped(runs, lambda placed: placed.placement)
    ranks = {
        name: (_accuracies(members).mean(), mean(run.over_training for run in members))
        for name, members in groups.items()
    }
    return {name: groups[name] for name in sorted(groups, key=ranks.__getitem__, reverse=True)}


def _accuracies(members: Sequence[PlacedRun]) -> Numbers:
    return np.array([placed.run.accuracy for placed in members])


def _add_placement(placement: str, members: Sequence[PlacedRun], metric: str, findings: Findings) -> None:
    name, accuracies = placement.replace(",", "_").replace("-", "_"), _accuracies(members)
    layers = [
        mean(placed.ess(placed.run.last, [layer]) for placed in members) for layer in range(len(members[0].layers))
    ]
    over_training = mean(run.over_training for run in members)
    findings.add(f"{name}_accuracy", of_mean(accuracies))
    findings.figures[f"{name}_accuracy_over_training"] = over_training
    findings.figures |= {f"{name}_ess_layer_{layer}": ess for layer, ess in enumerate(layers)}
    findings.statements.append(
        f"{placement}: accuracy {accuracies.mean():.2f} ({len(members)} runs, {accuracies.min():.2f} to "
        f"{accuracies.max():.2f}), {over_training:.2f} on average over training; ESS of the layers "
        f"({metric}) {', '.join(f'{ess:.1f}' for ess in layers)}."
    )


def _add_foresights(runs: Sequence[PlacedRun], metric: str, findings: Findings) -> None:
    """The correlation of each early quantity with accuracy."""

    def of_others(placed: PlacedRun) -> float:
        return placed.ess(placed.early, [layer for layer in range(len(placed.layers)) if layer not in placed.attention])

    predictors: dict[str, tuple[str, Callable[[PlacedRun], float]]] = {
        "early": (f"early ESS ({metric})", lambda placed: float(placed.early[metric])),
        "early_entropy": ("early ESS (entropy)", lambda placed: float(placed.early["entropy"])),
        "early_gated": ("early ESS of the other layers", of_others),
        CLAIMED: ("early ESS of the attention", lambda placed: placed.ess(placed.early, placed.attention)),
        "control_initial_attention": (
            "the control, ESS of the attention at initialisation,",
            lambda placed: placed.ess(placed.run.first, placed.attention),
        ),
        "control_initial": ("the control, ESS at initialisation,", lambda placed: placed.run.initial_ess),
        "control_place": ("the control, how early the attention stands,", lambda placed: -mean(placed.attention)),
        "control_early_accuracy": ("the control, early accuracy,", lambda placed: float(placed.early["accuracy"])),
    }
    for name, (words, predictor) in predictors.items():
        known, early = _known(runs, predictor)
        over_all, inside = _foresight(known, name, early, _accuracies(known), findings)
        findings.statements.append(
            f"Spearman of {words} with final accuracy: {over_all}; in one setting, with as many attention layers, "
            f"{inside}."
        )
        if name == CLAIMED:
            _add_beyond(known, early, findings)
    known, early = _known(runs, predictors["early"][1])
    over_training = np.array([run.over_training for run in known])
    over_all, inside = _foresight(known, "early_over_training", early, over_training, findings)
    findings.statements.append(
        f"Spearman of {predictors['early'][0]} with the accuracy averaged over training, which tells those apart that "
        f"end alike: {over_all}; in one setting, with as many attention layers, {inside}."
    )

    def with_accuracy(predictor: Callable[[PlacedRun], float]) -> float:
        known, values = _known(runs, predictor)
        return spearman(values, _accuracies(known))

    attention = with_accuracy(lambda run: float(len(run.attention)))
    layers = range(min((len(run.layers) for run in runs), default=0))
    single = [with_accuracy(lambda run, layer=layer: run.ess(run.early, [layer])) for layer in layers]
    findings.figures["control_attention_spearman"] = attention
    findings.figures |= {f"early_layer_{layer}_spearman": value for layer, value in enumerate(single)}
    findings.statements.append(
        "Spearman with final accuracy over all runs, without intervals: early ESS of each layer "
        f"{', '.join(f'{value:.2f}' for value in single)}; the control, the number of attention layers, "
        f"{attention:.2f}."
    )


def _known(runs: Sequence[PlacedRun], predictor: Callable[[PlacedRun], float]) -> tuple[list[PlacedRun], Numbers]:
    """The runs whose predictor is not NaN, and their predictors (N,)."""
    known = [run for run in runs if not math.isnan(predictor(run))]
    return known, np.array([predictor(run) for run in known])


def _foresight(
    runs: Sequence[PlacedRun], name: str, early: Numbers, later: Numbers, findings: Findings
) -> tuple[Interval, Interval]:
    """Spearman's correlation of a predictor with accuracy: over all runs, and among runs that differ in placement."""
    groups = numbered([(run.run.labels("mixer", "seed"), len(run.attention)) for run in runs])
    places = numbered([run.first_place for run in runs])

    def inside(rows: Indices) -> float:
        x, y = (ranks(values[rows]) for values in (early, later))
        return pearson(within_cells(x, groups[rows]), within_cells(y, groups[rows]))

    if name == CLAIMED:
        placements = numbered([run.placement for run in runs])
        findings.add(f"{name}_spearman_inside_by_placement", jackknife(inside, placements, correlation=True))
    return (
        findings.add(f"{name}_spearman", spearman_evidence(early, later, places)),
        findings.add(f"{name}_spearman_inside", jackknife(inside, places, correlation=True)),
    )


def _add_beyond(runs: Sequence[PlacedRun], early: Numbers, findings: Findings) -> None:
    """What the early ESS of the attention predicts when its first layer, or all its layers, are known."""
    later, settings = _accuracies(runs), numbered([placed.run.labels("mixer", "seed") for placed in runs])
    places = numbered([placed.first_place for placed in runs])
    said: list[Interval] = []
    for name, groups in (
        ("first_place", numbered([(len(placed.attention), placed.first_place) for placed in runs])),
        ("placement", numbered([placed.placement for placed in runs])),
    ):

        def left(rows: Indices, groups: Indices = groups) -> float:
            effects = np.hstack([known[rows, None] == np.unique(known) for known in (settings, groups)]).astype(float)
            x, y = (ranks(values[rows]) for values in (early, later))
            return pearson(*(values - effects @ np.linalg.lstsq(effects, values)[0] for values in (x, y)))

        said.append(findings.add(f"early_attention_beyond_{name}", jackknife(left, places, correlation=True)))
    findings.statements.append(
        f"Of that, {said[0]} is left among hybrids whose first attention layer stands in the same place, and {said[1]} "
        "among runs of one placement (means taken off the ranks)."
    )


def draw(table: StudyTable) -> alt.VConcatChart:
    """Accuracy and ESS per layer of each placement, accuracy over training, and early ESS against final accuracy."""
    runs = [placed for members in _by_accuracy(placed_runs(table)).values() for placed in members]
    records = {
        str(placed.run.last["run"]): {
            "placement": placed.placement,
            "first attention": "none" if placed.first_place is None else str(placed.first_place),
            "attention layers": len(placed.attention),
            "seed": placed.run.seed,
            "early ESS": placed.ess(placed.early, placed.attention),
            "accuracy": placed.run.accuracy,
        }
        for placed in runs
    }
    ends = list(records.values())
    layers = [
        {"placement": placed.placement, "layer": layer, "ESS": placed.ess(placed.run.last, [layer])}
        for placed in runs
        for layer in range(len(placed.layers))
    ]
    accuracy = strip(
        ends, "Accuracy of each placement: runs and their mean", "placement", "accuracy", "attention layers"
    )
    cells = chart(layers, f"ESS of the layers at the end ({table.metric})").encode(
        x=alt.X("layer:O", axis=alt.Axis(labelAngle=0)), y=alt.Y("placement:N", title=None, sort=None)
    )
    # The lighter half, on which black numbers can be read.
    blues = alt.Scale(scheme=alt.SchemeParams("blues", extent=[0, 0.5]))
    ess = cells.mark_rect().encode(color=alt.Color("mean(ESS):Q", title="ESS", scale=blues))
    numbers = cells.mark_text().encode(text=alt.Text("mean(ESS):Q", format=".1f"))
    through = [
        records[str(row["run"])] | {"step": row["step"], "accuracy": row["accuracy"]}
        for row in table.rows
        if row["run"] in records
    ]
    lines = mean_lines(
        through, "Accuracy over training, means", "step", "accuracy", "first attention", detail="placement:N"
    )
    title = f"What ESS shows early: that of the attention ({table.metric})"
    early = points(ends, title, "early ESS", "accuracy", "first attention")
    by_placement = alt.hconcat(accuracy, alt.layer(ess, numbers).properties(height=accuracy.height))
    # Each chart has colours and a legend of its own.
    drawn = by_placement.resolve_scale(color="independent"), alt.hconcat(lines, early)
    return alt.vconcat(*drawn).resolve_scale(color="independent")


STUDY = Study("hybrids", {"smoke": SMOKE, "record": RECORD}, CAVEATS, analyse, draw)
