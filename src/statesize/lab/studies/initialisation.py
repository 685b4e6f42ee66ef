"""The study of initialisation: what the first decays of S6 do to ESS as the state grows, and to what is learned.

Parnichkun et al., "Quantifying Memory Utilization with Effective State-Size", ICML 2025, arXiv 2504.19561: with the
rates −1 … −n the ESS at initialisation stalls or falls as n grows, and the normalisation factor 1/n mends it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import altair as alt
import numpy as np

from statesize.lab.studies.engine.charts import chart_data, mean_lines, percent
from statesize.lab.studies.engine.conclusion import Conclusion, Findings
from statesize.lab.studies.engine.final import FinalRun, final_runs, grid_findings, grouped, paired_differences
from statesize.lab.studies.engine.study import Study
from statesize.lab.studies.engine.table import Row
from statesize.lab.studies.statistics import Evidence, mean, of_mean
from statesize.lab.studies.verdicts import Claim

# Seconds: to see that everything works. Nothing is learned.
SMOKE = """\
study = "initialisation"

[model]
width = 8
heads = 2
layers = 1
mlp_factor = 1
smallest_step = 0.01
largest_step = 0.1

[training]
steps = 10
batch_size = 4
rate = 7e-3
seed = [0, 1]

[measuring]
every = 10
sequences = 1

# Only measured.
[[task]]
name = "mqar"
pairs = 4
length = 48
vocabulary_size = 16
held_out_sequences = 4
[task.model]
mixer = ["s6", "gla-s6"]
normalised = [false, true]
key_size = [4, 16]
[task.training]
steps = 0

[[task]]
name = "mqar"
pairs = 4
length = 24
vocabulary_size = 16
held_out_sequences = 8
[task.model]
mixer = "s6"
normalised = [false, true]
key_size = 4

[[task]]
name = "mqar"
pairs = 4
length = 24
vocabulary_size = 16
held_out_sequences = 8
[task.model]
mixer = ["gla", "la"]
key_size = 4
"""

LAPTOP = """\
# Twelve minutes on two cores at most: ESS before training up to n = 64, and what is learned up to n = 16.
study = "initialisation"

# Fixed before any run with these seeds, which the pilot did not have.
[claim]
statement = "At the largest state of the grid the normalisation factor gives S6 and GLA-S6 more than 2 times the ESS (relative_0.01) at initialisation, and raises the accuracy of trained S6 by more than 0.25."
unit = "pair of equal seeds"
least_units = 5
pilot = "seeds 0–4 of this grid with the output layer tied (+.56) and untied (+.29), where .5 was asked for"
[claim.thresholds]
"s6_initial_ratio_0.01_to_0.1" = 2.0
"gla_s6_initial_ratio_0.01_to_0.1" = 2.0
"s6_accuracy_gain_0.01_to_0.1" = 0.25

[model]
width = 32
heads = 2
layers = 2
mlp_factor = 2
convolution_size = 4
decay_bias = 0.0
smallest_step = 0.01
largest_step = 0.1

[training]
steps = 800
batch_size = 24
rate = 7e-3
warm_up = 0.1
weight_decay = 0.0
clip = 1.0
seed = [100, 101, 102]

[measuring]
every = 800
sequences = 2

# Only measured.
[[task]]
name = "mqar"
pairs = 10
length = 192
vocabulary_size = 64
held_out_sequences = 8
[task.model]
mixer = ["s6", "gla-s6"]
normalised = [false, true]
key_size = [4, 8, 16, 32, 64]
[task.training]
steps = 0

[[task]]
name = "mqar"
pairs = 10
length = 192
vocabulary_size = 64
held_out_sequences = 8
[task.model]
mixer = ["gla", "la"]
key_size = [4, 8, 16, 32, 64]
[task.training]
steps = 0

# Trained.
[[task]]
name = "mqar"
pairs = 10
length = 64
vocabulary_size = 64
[task.model]
mixer = ["s6", "gla-s6"]
normalised = [false, true]
key_size = [4, 8, 16]

[[task]]
name = "mqar"
pairs = 10
length = 64
vocabulary_size = 64
[task.model]
mixer = ["gla", "la"]
key_size = [4, 8, 16]

# More seeds of what the claim is about.
[[task]]
name = "mqar"
pairs = 10
length = 192
vocabulary_size = 64
held_out_sequences = 8
[task.model]
mixer = ["s6", "gla-s6"]
normalised = [false, true]
key_size = 64
[task.training]
steps = 0
seed = [103, 104]

[[task]]
name = "mqar"
pairs = 10
length = 64
vocabulary_size = 64
[task.model]
mixer = "s6"
normalised = [false, true]
key_size = 16
[task.training]
seed = [103, 104]

# Controls: steps that start slower, and the rates 1 ... n moved by measuring.
[[task]]
name = "mqar"
pairs = 10
length = 192
vocabulary_size = 64
held_out_sequences = 8
[task.model]
mixer = ["s6", "gla-s6"]
normalised = [false, true]
key_size = [4, 16, 64]
smallest_step = 0.001
[task.training]
steps = 0
seed = 100

[[task]]
name = "mqar"
pairs = 10
length = 64
vocabulary_size = 64
[task.model]
mixer = "s6"
normalised = [false, true]
key_size = 16
smallest_step = 0.001

[[task]]
name = "mqar"
pairs = 10
length = 64
vocabulary_size = 64
intervention = "measured_start"
[task.model]
mixer = "s6"
key_size = 16
"""  # noqa: E501

S6_KINDS = ("s6", "gla-s6")
"""The mixers whose rates start at 1 … n, or with the factor at 1/n … n/n."""

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


@dataclass(frozen=True)
class Start:
    """How the decays of a model start; runs of equal starts differ in state size, task, rate and seed."""

    mixer: str
    normalised: bool  # whether the rates start at 1/n … n/n
    steps: tuple[float, float]  # range of the step sizes, zeros for a mixer without them
    intervention: str

    @classmethod
    def of(cls, run: FinalRun) -> Start:
        """The start of a run."""
        model, has_steps = run.settings["model"], run.mixer in S6_KINDS
        steps = (model["smallest_step"], model["largest_step"]) if has_steps else (0.0, 0.0)
        return cls(run.mixer, has_steps and model["normalised"], steps, run.intervention)

    @property
    def label(self) -> str:
        """The start in words."""
        words = [self.mixer + (" normalised" if self.normalised else "")]
        if any(self.steps):
            words.append(_range(self.steps))
        return ", ".join([*words, *([] if self.intervention == "none" else [self.intervention])])

    @property
    def name(self) -> str:
        """The start in the name of a figure."""
        label = self.label.replace(self.mixer, self.mixer.replace("-", "_"), 1)
        return label.replace("steps ", "").replace(", ", "_").replace(" ", "_")


def conclude(rows: Sequence[Row], metric: str, claim: Claim | None = None) -> Conclusion:
    """What a grid says about how decays should start; of the largest states, and of each range of steps."""
    by_start, findings = grouped(final_runs(rows), Start.of), grid_findings(rows)
    ranges = list(dict.fromkeys(start.steps for start in by_start if start.mixer in S6_KINDS))
    for steps in ranges:
        for mixer in S6_KINDS:
            plain, factor = (by_start.get(Start(mixer, on, steps, "none"), []) for on in (False, True))
            _add_effect(mixer, steps, steps != ranges[0], plain, factor, metric, findings)
    _add_groups(final_runs(rows), metric, ranges[0] if ranges else (0.0, 0.0), findings)
    return findings.conclusion("initialisation", claim, CAVEATS)


def _add_effect(
    mixer: str,
    steps: tuple[float, float],
    control: bool,
    plain: Sequence[FinalRun],
    factor: Sequence[FinalRun],
    metric: str,
    findings: Findings,
) -> None:
    """The ratio of ESS at initialisation, with the factor and without it, and the gain in accuracy."""
    name, suffix = f"{'control_' if control else ''}{mixer.replace('-', '_')}", f"{steps[0]:g}_to_{steps[1]:g}"
    words = f"{mixer}, {_range(steps)}"
    for figure, verb, (states, evidence) in (
        ("initial_ratio", "multiplies the ESS at initialisation", _ratio(plain, factor, metric)),
        ("accuracy_gain", "raises the accuracy", _gain(plain, factor)),
    ):
        estimate = findings.add(f"{name}_{figure}_{suffix}", evidence)
        if math.isfinite(estimate.value):
            findings.statements.append(f"{words}: the factor {verb} at n = {states} by {estimate}.")


def _ratio(plain: Sequence[FinalRun], factor: Sequence[FinalRun], metric: str) -> tuple[int, Evidence]:
    """The largest n, and the ratio of its ESS at initialisation, at the longest sequences that have it."""
    before, after = (grouped(runs, lambda run: (run.key_size, run.length)) for runs in (plain, factor))
    if not before.keys() & after.keys():
        return 0, Evidence(math.nan)
    largest = max(before.keys() & after.keys())
    before, after = before[largest], after[largest]
    logarithms = paired_differences(before, after, value=lambda run: math.log(float(run.first[metric])))
    return largest[0], of_mean(np.exp(logarithms))


def _gain(plain: Sequence[FinalRun], factor: Sequence[FinalRun]) -> tuple[int, Evidence]:
    """The largest n that was trained, and its gain in accuracy by the factor, in pairs of equal seeds."""
    before, after = (list(filter(trained, runs)) for runs in (plain, factor))
    pairs = {run.labels() for run in before}
    states = max((run.key_size for run in after if run.labels() in pairs), default=0)
    before, after = ([run for run in runs if run.key_size == states] for runs in (before, after))
    return states, of_mean(paired_differences(before, after))


def _add_groups(runs: Sequence[FinalRun], metric: str, claimed: tuple[float, float], findings: Findings) -> None:
    """ESS at initialisation, after training, and accuracy against n, in words and as figures."""
    words = {"initial": "ESS at initialisation", "trained": "after training", "accuracy": "accuracy"}
    for (length, start), group in grouped(runs, lambda run: (run.length, Start.of(run))).items():
        control = start.intervention != "none" or (any(start.steps) and start.steps != claimed)
        name = f"{'control_' if control else ''}{start.name}_L{length}"
        by_size = grouped(group, lambda run: run.key_size)
        columns: dict[str, list[str]] = {}
        for states, members in sorted(by_size.items()):
            values = {"initial": mean(run.first[metric] for run in members)}
            if learned := [run for run in members if trained(run)]:
                values["trained"] = mean(run.last[metric] for run in learned)
                values["accuracy"] = mean(run.accuracy for run in learned)
            for column, value in values.items():
                findings.figures[f"{name}_n{states}_{column}"] = value
                columns.setdefault(column, []).append(f"{value:.2f}" if column == "accuracy" else f"{value:.1f}")
        shown = "; ".join(f"{words[column]} {', '.join(values)}" for column, values in columns.items())
        sizes = ", ".join(map(str, sorted(by_size)))
        findings.statements.append(f"{start.label}, L {length}, n {sizes}: {shown}.")


def _range(steps: tuple[float, float]) -> str:
    return f"steps {steps[0]:g} to {steps[1]:g}"


def trained(run: FinalRun) -> bool:
    """Whether the run was trained, and not only measured at its start."""
    return int(run.last["step"]) > 0


def charts(rows: Sequence[Row], metric: str) -> alt.VConcatChart:
    """ESS at initialisation, ESS after training and accuracy against the size of the state, a row for each length."""
    length_charts: list[alt.HConcatChart] = []
    for length, runs in grouped(final_runs(rows), lambda run: run.length).items():
        charts = [_lines(runs, metric, "initial", f"ESS ({metric})", f"ESS at initialisation, L = {length}")]
        if learned := [run for run in runs if trained(run)]:
            charts += [
                _lines(learned, metric, "ess", f"ESS ({metric})", "ESS after training"),
                _lines(learned, metric, "accuracy", "Accuracy", "Accuracy"),
            ]
        length_charts.append(alt.hconcat(*charts))
    return alt.vconcat(*length_charts)


def _lines(runs: Sequence[FinalRun], metric: str, y: str, y_title: str, title: str) -> alt.LayerChart | alt.FacetChart:
    data = chart_data(_shown(run, metric) for run in runs)
    sizes = alt.Axis(values=sorted({run.key_size for run in runs}))
    size = alt.X("key_size:Q", title="Size of the state n", scale=alt.Scale(type="log", base=2), axis=sizes)
    axis = percent() if y == "accuracy" else alt.Axis()
    chart = mean_lines(data, title, size, y, y_title, axis, ["start:N", "key_size:Q"])
    dash = alt.StrokeDash("start:N", title="Start", legend=alt.Legend(labelLimit=400, symbolSize=600))
    # Points of their own, so that the legend shows strokes.
    points = chart.mark_point(filled=True, opacity=1).encode(detail="start:N")
    return alt.layer(chart.mark_line().encode(strokeDash=dash), points)


def _shown(run: FinalRun, metric: str) -> dict[str, object]:
    return {
        "key_size": run.key_size,
        "mixer": run.mixer,
        "start": Start.of(run).label,
        "initial": run.first[metric],
        "ess": run.last[metric],
        "accuracy": run.accuracy,
    }


STUDY = Study(
    name="initialisation",
    presets={"smoke": SMOKE, "laptop": LAPTOP},
    conclude=conclude,
    charts=charts,
)
