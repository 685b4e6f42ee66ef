"""The study of initialisation: what the first decays of S6 do to ESS as the state grows, and to what is learned.

Parnichkun et al., "Quantifying Memory Utilization with Effective State-Size", ICML 2025, arXiv 2504.19561: with the
rates −1 … −n the ESS at initialisation stalls or falls as n grows, and the normalisation factor 1/n mends it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from statesize.studies.grid.run import Row
from statesize.studies.page.conclusion import Conclusion, Figure
from statesize.studies.page.final import FinalRun, diverged, diverged_statement, final_runs
from statesize.studies.page.statistics import Interval, bootstrap

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
    """How the decays of a model start; runs of equal starts differ in state size, task, rate and seed.

    Attributes:
        mixer: Name of the mixer.
        normalised: Whether the rates start at 1/n … n/n.
        smallest_step: Lower end of the step sizes, 0 for a mixer without them.
        largest_step: Their upper end.
        intervention: What was done to the model before training.
    """

    mixer: str
    normalised: bool
    smallest_step: float
    largest_step: float
    intervention: str

    @classmethod
    def of(cls, row: Row) -> Start:
        """The start that a row tells.

        Args:
            row: Of a study.

        Returns:
            The start.
        """
        mixer, model = str(row["mixer"]), json.loads(str(row["settings"]))["model"]
        steps = (model["smallest_step"], model["largest_step"]) if mixer in S6_KINDS else (0.0, 0.0)
        return cls(mixer, mixer in S6_KINDS and model["normalised"], *steps, str(row["intervention"]))

    @property
    def steps(self) -> tuple[float, float]:
        """The range of the step sizes."""
        return self.smallest_step, self.largest_step

    @property
    def label(self) -> str:
        """The start in words."""
        words = [self.mixer + (" normalised" if self.normalised else "")]
        if self.smallest_step:
            words.append(f"steps {self.smallest_step:g} to {self.largest_step:g}")
        return ", ".join([*words, *([] if self.intervention == "none" else [self.intervention])])

    @property
    def name(self) -> str:
        """The start in the name of a figure."""
        words = [self.mixer.replace("-", "_"), *(["normalised"] if self.normalised else [])]
        words += [f"{self.smallest_step:g}_to_{self.largest_step:g}"] if self.smallest_step else []
        return "_".join([*words, *([] if self.intervention == "none" else [self.intervention])])


def initialisation(rows: Sequence[Row], metric: str) -> Conclusion:
    """What a grid says about how decays should start.

    Args:
        rows: All rows of the study.
        metric: Column of the metric for which the claim is made, named before the runs were.

    Returns:
        The conclusion. The claim is for the largest states and the first range of step sizes in the grid.
    """
    runs = [(Start.of(run.last), run) for run in final_runs(rows)]
    figures: dict[str, Figure] = {"diverged": float(diverged(rows))}
    statements: list[str] = []
    claimed: dict[str, float] = {}
    ranges = list(dict.fromkeys(start.steps for start, _ in runs if start.mixer in S6_KINDS))
    for steps in ranges:
        prefix = "" if steps == ranges[0] else "control_"
        suffix = f"{steps[0]:g}_to_{steps[1]:g}"
        for mixer in S6_KINDS:
            plain, factor = (
                [run for start, run in runs if start == Start(mixer, normalised, *steps, "none")]
                for normalised in (False, True)
            )
            name, words = f"{prefix}{mixer.replace('-', '_')}", f"{mixer}, steps {steps[0]:g} to {steps[1]:g}"
            states, ratio = _ratio(plain, factor, metric)
            figures[f"{name}_initial_ratio_{suffix}"] = ratio
            if math.isfinite(ratio):
                statements.append(
                    f"{words}: the factor gives {ratio:.2f} times the ESS at initialisation at n = {states}."
                )
            states, gain = _gain(plain, factor)
            figures[f"{name}_accuracy_gain_{suffix}"] = gain.value
            figures[f"{name}_accuracy_gain_interval_{suffix}"] = (gain.low, gain.high)
            if math.isfinite(gain.value):
                statements.append(
                    f"{words}: the factor raises the accuracy at n = {states} by {gain.value:.2f} "
                    f"[{gain.low:.2f}, {gain.high:.2f}]."
                )
            if not prefix:
                claimed |= {f"{mixer} ratio": ratio, f"{mixer} gain": gain.value, f"{mixer} low": gain.low}
    told, found = _groups(runs, metric, ranges[0] if ranges else (0.0, 0.0))
    statements += told
    statements += diverged_statement(rows)
    return Conclusion("initialisation", _claim(metric), _holds(claimed), figures | found, tuple(statements), CAVEATS)


def _claim(metric: str) -> str:
    return (
        f"At the largest state of the grid the normalisation factor gives S6 and GLA-S6 at least {LEAST_RATIO:g} times "
        f"the ESS ({metric}) at initialisation, and raises the accuracy of trained S6 by at least {LEAST_GAIN:g}, with "
        "an interval above 0."
    )


def _holds(claimed: dict[str, float]) -> bool | None:
    needed = [claimed.get(name, math.nan) for name in ("s6 ratio", "gla-s6 ratio", "s6 gain", "s6 low")]
    if not np.isfinite(needed).all():
        return None
    least_ratio, gain, low = min(needed[:2]), needed[2], needed[3]
    return least_ratio >= LEAST_RATIO and gain >= LEAST_GAIN and low > 0


def _ratio(plain: Sequence[FinalRun], factor: Sequence[FinalRun], metric: str) -> tuple[int, float]:
    """The largest n, at the longest sequences that have it, and how many times the ESS at initialisation is there."""
    both = {_place(run) for run in plain} & {_place(run) for run in factor}
    if not both:
        return 0, math.nan
    states, length = max(both)
    before, after = (
        _mean(run.first[metric] for run in runs if _place(run) == (states, length)) for runs in (plain, factor)
    )
    return states, after / before


def _gain(plain: Sequence[FinalRun], factor: Sequence[FinalRun]) -> tuple[int, Interval]:
    """The largest n that was trained, and what the factor adds to the accuracy there, in pairs of equal seeds."""
    before, after = ({_pair(run): run.accuracy for run in runs if _trained(run)} for runs in (plain, factor))
    pairs = before.keys() & after.keys()
    states = max((pair[0] for pair in pairs), default=0)
    gains = np.array([after[pair] - before[pair] for pair in sorted(pairs) if pair[0] == states])
    if not len(gains):
        return 0, Interval(math.nan, math.nan, math.nan)
    return states, bootstrap(lambda chosen: float(gains[chosen].mean()), np.arange(len(gains)))


def _groups(
    runs: Sequence[tuple[Start, FinalRun]], metric: str, claimed: tuple[float, float]
) -> tuple[list[str], dict[str, Figure]]:
    """ESS at initialisation, after training, and accuracy against n, in words and as figures."""
    groups: dict[tuple[int, Start], dict[int, list[FinalRun]]] = {}
    for start, run in runs:
        groups.setdefault((run.length, start), {}).setdefault(run.key_size, []).append(run)
    statements: list[str] = []
    figures: dict[str, Figure] = {}
    for (length, start), by_size in groups.items():
        control = start.intervention != "none" or (start.smallest_step and start.steps != claimed)
        name = f"{'control_' if control else ''}{start.name}_L{length}"
        parts: dict[str, list[str]] = {}
        for states, members in sorted(by_size.items()):
            trained = [run for run in members if _trained(run)]
            values = {"initial": _mean(run.first[metric] for run in members)}
            if trained:
                values["trained"] = _mean(run.last[metric] for run in trained)
                values["accuracy"] = _mean(run.accuracy for run in trained)
            for what, value in values.items():
                figures[f"{name}_n{states}_{what}"] = value
                parts.setdefault(what, []).append(f"{value:.2f}" if what == "accuracy" else f"{value:.1f}")
        words = {"initial": "ESS at initialisation", "trained": "after training", "accuracy": "accuracy"}
        told = "; ".join(f"{words[what]} {', '.join(values)}" for what, values in parts.items())
        sizes = ", ".join(str(states) for states in sorted(by_size))
        statements.append(f"{start.label}, L {length}, n {sizes}: {told}.")
    return statements, figures


def _place(run: FinalRun) -> tuple[int, int]:
    return run.key_size, run.length


def _pair(run: FinalRun) -> tuple[Any, ...]:
    return (run.key_size, run.length, run.task, run.kv, run.rate, run.seed)


def _trained(run: FinalRun) -> bool:
    return int(run.last["step"]) > 0


def _mean(values: Iterable[object]) -> float:
    return float(np.mean(np.array(list(values), np.float64)))
