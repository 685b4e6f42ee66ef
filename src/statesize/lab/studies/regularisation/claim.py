"""The study of regularisation: does keeping decays near 1, or ESS near a target, help gated mixers to recall?

Parnichkun et al., "Quantifying Memory Utilization with Effective State-Size", ICML 2025, arXiv 2504.19561: a term
λ‖A − I‖_F in the loss repairs the state collapse of gated and weighted linear attention.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import altair as alt

from statesize.lab.studies.grid.run import Row
from statesize.lab.studies.page.charts import SIDE, chart_data, palette, percent, points, rounded
from statesize.lab.studies.page.conclusion import Conclusion
from statesize.lab.studies.page.final import (
    FinalRun,
    accuracy_of,
    final_runs,
    grid_findings,
    grouped,
    paired_differences,
)
from statesize.lab.studies.statistics import Evidence, mean, of_mean
from statesize.lab.studies.verdicts import Claim

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
    """A treatment against collapse; runs of equal treatments differ in mixer, task, rate and seed."""

    identity_weight: float  # λ
    utilisation_weight: float  # of the objective of utilisation
    target_utilisation: float  # 0 without a weight
    intervention: str
    steps: int

    @classmethod
    def of(cls, run: FinalRun) -> Treatment:
        """The treatment of a run."""
        training = run.settings["training"]
        weight = float(training.get("utilisation_weight", 0.0))
        target = float(training.get("target_utilisation", 0.8)) if weight else 0.0
        identity = float(training.get("identity_weight", 0.0))
        return cls(identity, weight, target, run.intervention, int(training["steps"]))

    @property
    def regularised(self) -> bool:
        """Whether something was added to the loss."""
        return self.identity_weight > 0 or self.utilisation_weight > 0

    def label(self, steps: int) -> str:
        """The treatment in words, such as "λ 0.3"; with its steps where they are not the usual ones."""
        words = [] if self.utilisation_weight and not self.identity_weight else [f"λ {self.identity_weight:g}"]
        if self.utilisation_weight:
            words.append(f"utilisation to {self.target_utilisation:g}, weight {self.utilisation_weight:g}")
        words += [] if self.intervention == "none" else [self.intervention]
        return ", ".join([*words, *([] if self.steps == steps else [f"{self.steps} steps"])])


def usual_steps(runs: Sequence[FinalRun]) -> int:
    """The fewest steps of any run; runs with more are a control. 0 without runs."""
    return min((Treatment.of(run).steps for run in runs), default=0)


def regularisation(rows: Sequence[Row], metric: str, claim: Claim | None = None) -> Conclusion:
    """What a grid says about regularisers, by a column of ESS."""
    runs, findings = final_runs(rows), grid_findings(rows)
    steps = usual_steps(runs)
    plain = Treatment(0.0, 0.0, 0.0, "none", steps)
    groups = grouped(runs, lambda run: (run.mixer, Treatment.of(run)))
    for (mixer, treatment), members in groups.items():
        label = treatment.label(steps)
        slug = label.replace("λ", "lambda").replace(",", "").replace(" ", "_")
        prefix = "control_" if not treatment.regularised and treatment != plain else ""
        name = f"{prefix}{mixer.replace('-', '_')}_{slug}"
        columns = {"accuracy": "accuracy", "utilisation": f"utilisation_{metric}", "entropy": "entropy", "norm": "norm"}
        means = {what: mean(run.last[column] for run in members) for what, column in columns.items()}
        means["share"] = mean(run.share(metric) for run in members)
        findings.figures |= {f"{name}_{what}": value for what, value in means.items()}
        statement = (
            f"{mixer}, {label} ({len(members)} runs): accuracy {means['accuracy']:.2f}, ESS/TSS "
            f"{means['share']:.2f} ({metric}), entropy-ESS {means['entropy']:.1f}, norm {means['norm']:.2g}"
        )
        before = groups.get((mixer, plain), [])
        if treatment != plain and before:
            gain = findings.add(f"{name}_gain", _gain(before, members, accuracy_of))
            share_gain = findings.add(f"{name}_share_gain", _gain(before, members, lambda run: run.share(metric)))
            statement += f"; against no treatment, accuracy {gain} and ESS/TSS {share_gain}"
        findings.statements.append(f"{statement}.")
    return findings.conclusion("regularisation", claim, CAVEATS)


def _gain(before: Sequence[FinalRun], after: Sequence[FinalRun], value: Callable[[FinalRun], float]) -> Evidence:
    """The mean difference of runs that are equal but for the treatment."""
    # Pairs start from the same weights, but for what an intervention does, and see the same data.
    return of_mean(paired_differences(before, after, "intervention", value=value))


def regularisation_charts(rows: Sequence[Row], metric: str) -> alt.VConcatChart:
    """Accuracy and ESS by treatment, and one against the other, each run a point."""
    runs = final_runs(rows)
    labels = [Treatment.of(run).label(usual_steps(runs)) for run in runs]
    data = chart_data(
        {
            "mixer": run.mixer,
            "treatment": label,
            "seed": run.seed,
            "accuracy": run.accuracy,
            "share": run.share(metric),
        }
        for run, label in zip(runs, labels, strict=True)
    )
    ordered, share = list(dict.fromkeys(labels)), f"ESS / TSS ({metric})"
    against = points(
        data,
        "Accuracy against ESS",
        alt.X("share:Q", title=share, axis=percent()),
        alt.Y("accuracy:Q", title="Accuracy", axis=percent()),
        palette("mixer", "Mixer"),
        ["mixer:N", "treatment:N", "seed:Q", "accuracy:Q", "share:Q"],
    )
    shape = alt.Shape("treatment:N", title="Treatment", sort=ordered, legend=alt.Legend(labelLimit=400))
    return alt.vconcat(
        alt.hconcat(_by_treatment(data, ordered, "accuracy", "Accuracy"), _by_treatment(data, ordered, "share", share)),
        alt.hconcat(against.encode(shape=shape).properties(width=1.6 * SIDE)),
    )


def _by_treatment(data: alt.Data, ordered: list[str], y: str, title: str) -> alt.LayerChart | alt.FacetChart:
    base = alt.Chart(data, title=f"{title}, by treatment").encode(
        x=alt.X("treatment:N", title="Treatment", sort=ordered, axis=alt.Axis(labelLimit=300, labelAngle=-40)),
        xOffset="mixer:N",
        color=palette("mixer", "Mixer"),
        tooltip=["mixer:N", "treatment:N", "seed:Q", rounded(y)],
    )
    runs = base.mark_point(filled=True, size=30, opacity=0.6).encode(y=alt.Y(f"{y}:Q", title=title, axis=percent()))
    means = base.mark_tick(thickness=3, size=14).encode(
        y=f"mean({y}):Q", tooltip=["mixer:N", "treatment:N", rounded(f"mean({y})"), "count():Q"]
    )
    return alt.layer(runs, means).properties(width=1.6 * SIDE, height=SIDE)
