"""The study of regularisation: does keeping decays near 1, or ESS near a target, help gated mixers to recall?

Parnichkun et al., "Quantifying Memory Utilization with Effective State-Size", ICML 2025, arXiv 2504.19561: a term
λ‖A − I‖_F in the loss repairs the state collapse of gated and weighted linear attention.
"""

from __future__ import annotations

import json
import math
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from statesize.studies.grid.run import Row
from statesize.studies.page.conclusion import Conclusion, Figure
from statesize.studies.page.final import FinalRun, diverged, diverged_statement, final_runs
from statesize.studies.page.statistics import Interval

CLAIMED_MIXER, CLAIMED_WEIGHT, LEAST_GAIN = "gla", 0.3, 0.5
"""The claim: this λ raises the mean accuracy of this mixer by at least so much."""

REFERENCE = "la"
"""The mixer that forgets nothing: what λ makes of the others in the limit."""

CAVEATS = (
    "Where the gates start matters as much: opened at the start by a bias of 3 and trained without λ (open_gates), "
    "they avoid most of the collapse. The gain of λ over that is smaller than over gates that start at a bias of 0.",
    "The setting was chosen because the collapse is clear in it: a hard recall task that linear attention, which "
    "cannot forget, comes nearest to solving. On easier ones the gain is smaller, and where a task asks to forget, "
    "decays near 1 may be a loss.",
    "ESS and accuracy rise together because the same λ opens the gates; that it is the ESS that helps is not shown.",
    "Intervals are Student's, over seeds whose runs with and without treatment start from the same weights and see the "
    "same batches. They are rough, since accuracy goes from guessing to solved within few of them, and they tell "
    "nothing of other tasks, sizes and learning rates.",
    "Entropy-ESS does not depend on scale: a head can reach its target utilisation by forgetting evenly. The norm of "
    "its operators is given beside it.",
)


@dataclass(frozen=True)
class Treatment:
    """What was done against collapse; runs of equal treatments differ in mixer, task, rate and seed.

    Attributes:
        identity_weight: λ.
        utilisation_weight: Weight of the objective of utilisation.
        target_utilisation: Its target; 0 without a weight.
        intervention: What was done to the model before training.
        steps: Of training.
    """

    identity_weight: float
    utilisation_weight: float
    target_utilisation: float
    intervention: str
    steps: int

    @classmethod
    def of(cls, row: Row) -> Treatment:
        """The treatment that a run's last row tells.

        Args:
            row: Of a study.

        Returns:
            The treatment.
        """
        training = json.loads(str(row["settings"]))["training"]
        weight = float(training.get("utilisation_weight", 0.0))
        target = float(training.get("target_utilisation", 0.8)) if weight else 0.0
        identity = float(training.get("identity_weight", 0.0))
        return cls(identity, weight, target, str(row["intervention"]), int(training["steps"]))

    @property
    def regularised(self) -> bool:
        """Whether something was added to the loss."""
        return self.identity_weight > 0 or self.utilisation_weight > 0

    def label(self, steps: int) -> str:
        """The treatment in words.

        Args:
            steps: Of most runs; others are named.

        Returns:
            Such as "λ 0.3".
        """
        words = [] if self.utilisation_weight and not self.identity_weight else [f"λ {self.identity_weight:g}"]
        if self.utilisation_weight:
            words.append(f"utilisation to {self.target_utilisation:g}, weight {self.utilisation_weight:g}")
        words += [] if self.intervention == "none" else [self.intervention]
        return ", ".join([*words, *([] if self.steps == steps else [f"{self.steps} steps"])])


@dataclass(frozen=True)
class TreatedRun:
    """A run with what was done to it.

    Attributes:
        treatment: What was done.
        run: The run.
        share: ESS/TSS at the end.
    """

    treatment: Treatment
    run: FinalRun
    share: float

    @property
    def pair(self) -> tuple[Hashable, ...]:
        """Runs of equal pairs start from the same weights, but for what an intervention does, and see the same data."""
        run = self.run
        return (run.task, run.kv, run.length, run.mixer, run.key_size, run.heads, run.width, run.rate, run.seed)


def treated_runs(rows: Sequence[Row], metric: str) -> list[TreatedRun]:
    """The runs that did not diverge, with their treatments.

    Args:
        rows: All rows of the study.
        metric: Column of the ESS.

    Returns:
        One a run.
    """
    return [
        TreatedRun(Treatment.of(run.last), run, float(run.last[metric]) / run.state_size) for run in final_runs(rows)
    ]


def usual_steps(runs: Sequence[TreatedRun]) -> int:
    """The fewest steps of any run; those with more are a control.

    Args:
        runs: Some runs.

    Returns:
        Steps; 0 without runs.
    """
    return min((found.treatment.steps for found in runs), default=0)


def regularisation(rows: Sequence[Row], metric: str) -> Conclusion:
    """What a grid says about regularisers.

    Args:
        rows: All rows of the study.
        metric: Column of the ESS.

    Returns:
        The conclusion.
    """
    runs = treated_runs(rows, metric)
    steps = usual_steps(runs)
    plain = Treatment(0.0, 0.0, 0.0, "none", steps)
    groups: dict[tuple[str, Treatment], list[TreatedRun]] = {}
    for found in runs:
        groups.setdefault((found.run.mixer, found.treatment), []).append(found)
    figures: dict[str, Figure] = {"diverged": float(diverged(rows))}
    statements: list[str] = []
    claimed = Interval(math.nan, math.nan, math.nan)
    for (mixer, treatment), members in groups.items():
        prefix = "control_" if not treatment.regularised and treatment != plain else ""
        name = f"{prefix}{mixer.replace('-', '_')}_{_slug(treatment.label(steps))}"
        means = _means(members, metric)
        figures |= {f"{name}_{what}": value for what, value in means.items()}
        told = (
            f"{mixer}, {treatment.label(steps)} ({len(members)} runs): accuracy {means['accuracy']:.2f}, ESS/TSS "
            f"{means['share']:.2f} ({metric}), entropy-ESS {means['entropy']:.1f}, norm {means['norm']:.2g}"
        )
        before = groups.get((mixer, plain), [])
        if treatment != plain and before:
            gain, more = (_gain(before, members, what) for what in ("accuracy", "share"))
            for what, interval in (("gain", gain), ("share_gain", more)):
                figures[f"{name}_{what}"] = interval.value
                figures[f"{name}_{what}_interval"] = (interval.low, interval.high)
            told += (
                f"; against no treatment, accuracy {gain.value:+.2f} [{gain.low:.2f}, {gain.high:.2f}] and ESS/TSS "
                f"{more.value:+.2f} [{more.low:.2f}, {more.high:.2f}]"
            )
            if (mixer, treatment) == (CLAIMED_MIXER, Treatment(CLAIMED_WEIGHT, 0.0, 0.0, "none", steps)):
                claimed = gain
        statements.append(f"{told}.")
    statements += diverged_statement(rows)
    holds = claimed.value >= LEAST_GAIN and claimed.low > 0 if math.isfinite(claimed.low) else None
    claim = (
        f"λ = {CLAIMED_WEIGHT:g}, the weight of the mean ‖A_t − I‖ in the loss, raises the mean accuracy of "
        f"{CLAIMED_MIXER} by at least {LEAST_GAIN:g}, with an interval above 0."
    )
    return Conclusion("regularisation", claim, holds, figures, tuple(statements), CAVEATS)


def _means(members: Sequence[TreatedRun], metric: str) -> dict[str, float]:
    columns = {"accuracy": "accuracy", "utilisation": f"utilisation_{metric}", "entropy": "entropy", "norm": "norm"}
    means = {what: _mean(float(found.run.last[column]) for found in members) for what, column in columns.items()}
    return means | {"share": _mean(found.share for found in members)}


def _gain(before: Sequence[TreatedRun], after: Sequence[TreatedRun], what: str) -> Interval:
    """The mean difference of runs that are equal but for the treatment, with Student's interval of 95 %."""
    first, second = ({found.pair: _value(found, what) for found in found_runs} for found_runs in (before, after))
    differences = np.array([second[pair] - first[pair] for pair in first if pair in second], np.float64)
    if len(differences) < 2:
        return Interval(float(differences.mean()) if len(differences) else math.nan, math.nan, math.nan)
    value, error = float(differences.mean()), float(differences.std(ddof=1)) / math.sqrt(len(differences))
    half = error * float(stats.t.ppf(0.975, len(differences) - 1))
    return Interval(value, value - half, value + half)


def _value(found: TreatedRun, what: str) -> float:
    return found.run.accuracy if what == "accuracy" else found.share


def _slug(label: str) -> str:
    return label.replace("λ", "lambda").replace(",", "").replace(" ", "_")


def _mean(values: Iterable[float]) -> float:
    return float(np.mean(list(values)))
