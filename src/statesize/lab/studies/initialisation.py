"""The study of initialisation: what the first decays of S6 do to ESS as the state grows, and to what is learned.

Parnichkun et al., "Quantifying Memory Utilization with Effective State-Size", ICML 2025, arXiv 2504.19561: with the
rates −1 … −n the ESS at initialisation stalls or falls as n grows, and the normalisation factor 1/n mends it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import altair as alt
import numpy as np

from statesize.lab.studies.engine.charts import dash, mean_lines
from statesize.lab.studies.engine.conclusion import Findings
from statesize.lab.studies.engine.final import FinalRun, StudyTable, grouped, paired_differences
from statesize.lab.studies.engine.study import Study
from statesize.lab.studies.statistics import Evidence, mean, of_mean

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


def analyse(table: StudyTable, findings: Findings) -> None:
    """What the factor gives at the largest states of each range of steps, and each start at each size."""
    by_start = grouped(table.runs, Start.of)
    ranges = list(dict.fromkeys(start.steps for start in by_start if start.mixer in S6_KINDS))
    for steps in ranges:
        for mixer in S6_KINDS:
            plain, factor = (by_start.get(Start(mixer, on, steps, "none"), []) for on in (False, True))
            name = f"{'' if steps == ranges[0] else 'control_'}{mixer.replace('-', '_')}"
            for figure, verb, (states, evidence) in (
                ("initial_ratio", "multiplies the ESS at initialisation", _ratio(plain, factor)),
                ("accuracy_gain", "raises the accuracy", _gain(plain, factor)),
            ):
                estimate = findings.add(f"{name}_{figure}_{steps[0]:g}_to_{steps[1]:g}", evidence)
                if math.isfinite(estimate.value):
                    said = f"the factor {verb} at n = {states} by {estimate}"
                    findings.statements.append(f"{mixer}, {_range(steps)}: {said}.")
    _add_groups(table.runs, ranges[0] if ranges else (0.0, 0.0), findings)


def _ratio(plain: Sequence[FinalRun], factor: Sequence[FinalRun]) -> tuple[int, Evidence]:
    """The largest n, and the ratio of its ESS at initialisation, at the longest sequences that have it."""
    before, after = (grouped(runs, lambda run: (run.key_size, run.length)) for runs in (plain, factor))
    if not before.keys() & after.keys():
        return 0, Evidence(math.nan)
    largest = max(before.keys() & after.keys())
    logarithms = paired_differences(before[largest], after[largest], value=lambda run: math.log(run.initial_ess))
    return largest[0], of_mean(np.exp(logarithms))


def _gain(plain: Sequence[FinalRun], factor: Sequence[FinalRun]) -> tuple[int, Evidence]:
    """The largest n that was trained, and its gain in accuracy by the factor, in pairs of equal seeds."""
    before, after = (list(filter(trained, runs)) for runs in (plain, factor))
    pairs = {run.labels() for run in before}
    states = max((run.key_size for run in after if run.labels() in pairs), default=0)
    before, after = ([run for run in runs if run.key_size == states] for runs in (before, after))
    return states, of_mean(paired_differences(before, after))


def _add_groups(runs: Sequence[FinalRun], claimed: tuple[float, float], findings: Findings) -> None:
    """ESS at initialisation, after training, and accuracy against n, in words and as figures."""
    words = {"initial": "ESS at initialisation", "trained": "after training", "accuracy": "accuracy"}
    for (length, start), group in grouped(runs, lambda run: (run.length, Start.of(run))).items():
        control = start.intervention != "none" or (any(start.steps) and start.steps != claimed)
        name = f"{'control_' if control else ''}{start.name}_L{length}"
        by_size = grouped(group, lambda run: run.key_size)
        columns: dict[str, list[str]] = {}
        for states, members in sorted(by_size.items()):
            values = {"initial": mean(run.initial_ess for run in members)}
            if learned := [run for run in members if trained(run)]:
                values["trained"] = mean(run.ess for run in learned)
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


def draw(table: StudyTable) -> alt.VConcatChart:
    """ESS at initialisation, ESS after training and accuracy against the size of the state, a row for each length."""
    rows: list[alt.HConcatChart] = []
    for length, runs in grouped(table.runs, lambda run: run.length).items():
        initial = _lines(runs, lambda run: run.initial_ess, "ESS", f"ESS at initialisation, L = {length}")
        learned = [run for run in runs if trained(run)]
        after = (
            _lines(learned, lambda run: run.ess, "ESS", f"ESS after training ({table.metric})"),
            _lines(learned, lambda run: run.accuracy, "accuracy", "Accuracy"),
        )
        rows.append(alt.hconcat(initial, *(after if learned else ())))
    return alt.vconcat(*rows)


def _lines(runs: Sequence[FinalRun], value: Callable[[FinalRun], float], y: str, title: str) -> alt.Chart:
    records = [{"mixer": run.mixer, "start": Start.of(run).label, "n": run.key_size, y: value(run)} for run in runs]
    sizes = alt.Axis(values=sorted({run.key_size for run in runs}))
    size = alt.X("n:Q", title="Size of the state n", scale=alt.Scale(type="log", base=2), axis=sizes)
    return mean_lines(records, title, "n", y, "mixer", strokeDash=dash("start")).encode(x=size)


STUDY = Study("initialisation", {"smoke": SMOKE, "laptop": LAPTOP}, CAVEATS, analyse, draw)
