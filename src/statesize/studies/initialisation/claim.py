"""The study of initialisation: what the first decays of S6 do to ESS as the state grows, and to what is learned.

Parnichkun et al., "Quantifying Memory Utilization with Effective State-Size", ICML 2025, arXiv 2504.19561: with the
rates −1 … −n the ESS at initialisation stalls or falls as n grows, and the normalisation factor 1/n mends it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from statesize.studies.grid.run import Row
from statesize.studies.page.conclusion import Conclusion, Findings
from statesize.studies.page.final import FinalRun, final_runs, grid_findings, grouped, paired_differences
from statesize.studies.page.statistics import Interval, bootstrap_mean, mean

S6_KINDS = ("s6", "gla-s6")
"""The mixers whose rates start at 1 … n, or with the factor at 1/n … n/n."""

LEAST_RATIO, LEAST_GAIN = 2.0, 0.5
"""The claim asks for this many times the ESS at initialisation, and this much more accuracy of S6."""

CAVEATS = (
    "How much the factor gives depends on where the step sizes start: the slower they are, the longer the memory is "
    "even without it. The claim is for the first range of steps in the grid; the others are given as controls.",
    "The factor changes the rates at the start only, and training is free to change them afterwards. That ESS at "
    "initialisation goes with what is learned is shown for these decays, not in general: between models whose decays "
    "start alike, it says little about the accuracy that is reached.",
    "ESS is a mean over all positions, and near both ends of a sequence no ESS can reach n: at the largest n the mean "
    "ceiling is well below it, for every mixer. In the middle of the sequence the differences are larger.",
    "Accuracies are means of few seeds of a small model at one learning rate, to which S6 is sensitive: at 2e-3 and "
    "1e-2 it did not learn the task. Intervals are over seeds, and with few of them they are rough.",
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


def initialisation(rows: Sequence[Row], metric: str) -> Conclusion:
    """What a grid says about how decays should start; the claim is for its largest states and first range of steps."""
    runs, findings = [(Start.of(run), run) for run in final_runs(rows)], grid_findings(rows)
    ranges = list(dict.fromkeys(start.steps for start, _ in runs if start.mixer in S6_KINDS))
    claimed = {mixer: (math.nan, Interval(math.nan)) for mixer in S6_KINDS}
    for steps in ranges:
        for mixer in S6_KINDS:
            plain, factor = (
                [run for start, run in runs if start == Start(mixer, normalised, steps, "none")]
                for normalised in (False, True)
            )
            found = _effect(mixer, steps, steps != ranges[0], plain, factor, metric, findings)
            if steps == ranges[0]:
                claimed[mixer] = found
    _add_groups(runs, metric, ranges[0] if ranges else (0.0, 0.0), findings)
    claim = (
        f"At the largest state of the grid the normalisation factor gives S6 and GLA-S6 at least {LEAST_RATIO:g} times "
        f"the ESS ({metric}) at initialisation, and raises the accuracy of trained S6 by at least {LEAST_GAIN:g}, with "
        "an interval above 0."
    )
    least_ratio, gain = min(ratio for ratio, _ in claimed.values()), claimed["s6"][1]
    needed = [*(ratio for ratio, _ in claimed.values()), gain.value, gain.low]
    holds = least_ratio >= LEAST_RATIO and gain.value >= LEAST_GAIN and gain.low > 0
    return findings.conclusion("initialisation", claim, holds if np.isfinite(needed).all() else None, CAVEATS)


def _effect(
    mixer: str,
    steps: tuple[float, float],
    control: bool,
    plain: Sequence[FinalRun],
    factor: Sequence[FinalRun],
    metric: str,
    findings: Findings,
) -> tuple[float, Interval]:
    """How many times the ESS at initialisation the factor gives, and what it adds to the accuracy."""
    name, suffix = f"{'control_' if control else ''}{mixer.replace('-', '_')}", f"{steps[0]:g}_to_{steps[1]:g}"
    words = f"{mixer}, {_range(steps)}"
    states, ratio = _ratio(plain, factor, metric)
    findings.figures[f"{name}_initial_ratio_{suffix}"] = ratio
    if math.isfinite(ratio):
        findings.statements.append(
            f"{words}: the factor gives {ratio:.2f} times the ESS at initialisation at n = {states}."
        )
    states, gain = _gain(plain, factor)
    findings.figures |= {
        f"{name}_accuracy_gain_{suffix}": gain.value,
        f"{name}_accuracy_gain_interval_{suffix}": (gain.low, gain.high),
    }
    if math.isfinite(gain.value):
        findings.statements.append(f"{words}: the factor raises the accuracy at n = {states} by {gain}.")
    return ratio, gain


def _ratio(plain: Sequence[FinalRun], factor: Sequence[FinalRun], metric: str) -> tuple[int, float]:
    """The largest n, at the longest sequences that have it, and how many times the ESS at initialisation is there."""
    before, after = (grouped(runs, lambda run: (run.key_size, run.length)) for runs in (plain, factor))
    if not before.keys() & after.keys():
        return 0, math.nan
    place = max(before.keys() & after.keys())
    initial = [mean(run.first[metric] for run in runs[place]) for runs in (before, after)]
    return place[0], initial[1] / initial[0]


def _gain(plain: Sequence[FinalRun], factor: Sequence[FinalRun]) -> tuple[int, Interval]:
    """The largest n that was trained, and what the factor adds to the accuracy there, in pairs of equal seeds."""
    before, after = (list(filter(trained, runs)) for runs in (plain, factor))
    pairs = {run.labels() for run in before}
    states = max((run.key_size for run in after if run.labels() in pairs), default=0)
    before, after = ([run for run in runs if run.key_size == states] for runs in (before, after))
    return states, bootstrap_mean(paired_differences(before, after))


def _add_groups(
    runs: Sequence[tuple[Start, FinalRun]], metric: str, claimed: tuple[float, float], findings: Findings
) -> None:
    """ESS at initialisation, after training, and accuracy against n, in words and as figures."""
    words = {"initial": "ESS at initialisation", "trained": "after training", "accuracy": "accuracy"}
    for (length, start), group in grouped(runs, lambda pair: (pair[1].length, pair[0])).items():
        control = start.intervention != "none" or (any(start.steps) and start.steps != claimed)
        name = f"{'control_' if control else ''}{start.name}_L{length}"
        by_size = grouped((run for _, run in group), lambda run: run.key_size)
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
        sizes = ", ".join(str(states) for states in sorted(by_size))
        findings.statements.append(f"{start.label}, L {length}, n {sizes}: {shown}.")


def _range(steps: tuple[float, float]) -> str:
    return f"steps {steps[0]:g} to {steps[1]:g}"


def trained(run: FinalRun) -> bool:
    """Whether the run was trained, and not only measured at its start."""
    return int(run.last["step"]) > 0
