"""The study of hybrids: where among gated layers should attention stand, and does ESS show it early?

Parnichkun et al., "Quantifying Memory Utilization with Effective State-Size", ICML 2025, arXiv 2504.19561, compare
hybrids by the ESS of their layers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import altair as alt
import numpy as np
from numpy.typing import NDArray

from statesize.lab.studies.grid.run import Row, layer_column
from statesize.lab.studies.hybrids.placements import PlacedRun, mean_ess, number, placed_runs
from statesize.lab.studies.page.charts import SIDE, chart_data, palette, percent, points, rounded
from statesize.lab.studies.page.conclusion import Conclusion, Findings
from statesize.lab.studies.page.final import grid_findings, grouped, numbered, paired_differences
from statesize.lab.studies.statistics import Numbers, jackknife, mean, of_mean, pearson, ranks, spearman, within_cells
from statesize.lab.studies.verdicts import Claim
from statesize.measurement.statistics import Interval

CAVEATS = (
    "Which placement wins depends on the task, the size and the number of steps, of which there is one each. In the "
    "presets, short convolutions before every mixer let a single attention layer find the value beside a key.",
    "The cache of attention grows with the sequence, so its ESS may exceed n, and the number of attention layers alone "
    "moves an average over layers. The claim is therefore also tested among placements with as many of them.",
    "The runs of one placement depend on each other: intervals leave out one placement at a time. Placements with "
    "attention in the same first layer are alike, so that they tell less than as many that were drawn. The difference "
    "between the two best is of a winner that was chosen after the fact.",
    "Figures for single layers, for the attention and for the other layers look at the same runs several times: they "
    "are hypotheses for another grid, not findings of this one.",
)


def _accuracy(found: PlacedRun) -> float:
    return found.run.accuracy


def _accuracy_over_training(found: PlacedRun) -> float:
    return found.over_training


def _numbers(
    runs: Sequence[PlacedRun], known: Callable[[PlacedRun], float], outcome: Callable[[PlacedRun], float] = _accuracy
) -> tuple[list[PlacedRun], Numbers, Numbers]:
    """The runs whose early number is not NaN, their early numbers (N,), and what comes of them (N,)."""
    runs = [found for found in runs if not math.isnan(known(found))]
    return runs, np.array([known(found) for found in runs]), np.array([outcome(found) for found in runs])


def foresight(
    runs: Sequence[PlacedRun],
    name: str,
    findings: Findings,
    known: Callable[[PlacedRun], float],
    outcome: Callable[[PlacedRun], float] = _accuracy,
) -> tuple[Interval, Interval]:
    """Spearman's correlation of an early number with the outcome: over all runs, and among runs that compare."""
    runs, early, later = _numbers(runs, known, outcome)
    groups, placements = _compared(runs), _placements(runs)

    def inside(rows: NDArray[np.int64]) -> float:
        x, y = (ranks(values[rows]) for values in (early, later))
        return pearson(within_cells(x, groups[rows]), within_cells(y, groups[rows]))

    over_all = jackknife(lambda rows: spearman(early[rows], later[rows]), placements, correlation=True)
    return (
        findings.add(f"{name}_spearman", over_all),
        findings.add(f"{name}_spearman_inside", jackknife(inside, placements, correlation=True)),
    )


def _compared(runs: Sequence[PlacedRun]) -> NDArray[np.int64]:
    """Numbers that runs share which compare: of one setting, with as many attention layers."""
    return numbered([(found.setting, found.attention) for found in runs])


def _placements(runs: Sequence[PlacedRun]) -> NDArray[np.int64]:
    return numbered([found.placement for found in runs])


def _add_beyond(runs: Sequence[PlacedRun], metric: str, findings: Findings) -> None:
    """What the early ESS of the attention tells when its first place, or all its places, are known."""
    runs, early, later = _numbers(runs, lambda found: mean_ess(found, found.early, metric, attention=True))
    placements, settings = _placements(runs), numbered([found.setting for found in runs])
    first = numbered([(found.attention, found.places[0]) for found in runs])
    said: list[Interval] = []
    for name, places in (("first_place", first), ("placement", placements)):

        def left(rows: NDArray[np.int64], places: NDArray[np.int64] = places) -> float:
            effects = np.hstack([known[rows, None] == np.unique(known) for known in (settings, places)]).astype(float)
            x, y = (ranks(values[rows]) for values in (early, later))
            return pearson(*(values - effects @ np.linalg.lstsq(effects, values)[0] for values in (x, y)))

        said.append(findings.add(f"early_attention_beyond_{name}", jackknife(left, placements, correlation=True)))
    findings.statements.append(
        f"Of that, {said[0]} is left among hybrids whose first attention layer stands in the same place, and {said[1]} "
        "among runs of one placement (means taken off the ranks)."
    )


def hybrids(rows: Sequence[Row], metric: str, claim: Claim | None = None) -> Conclusion:
    """What a grid says about placements of attention.

    Args:
        rows: All rows of the study.
        metric: Column of the metric for which the claim is made, named before the runs were done.
        claim: What was fixed before the runs; None where nothing was.

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
        shares = sorted({float(found.early["step"]) / float(found.run.last["step"]) for found in runs})
        findings.statements.append(f"Early is after {' and '.join(f'{share:.0%}' for share in shares)} of the steps.")
    return findings.conclusion("hybrids", claim, CAVEATS)


def _by_accuracy(runs: Sequence[PlacedRun]) -> dict[str, list[PlacedRun]]:
    """The runs of each placement, the most accurate first; of those that end alike, the one that learns sooner."""
    groups = grouped(runs, lambda found: found.placement)
    ranked = {name: (_accuracies(members).mean(), _over_training(members)) for name, members in groups.items()}
    return {name: groups[name] for name in sorted(groups, key=lambda name: ranked[name], reverse=True)}


def _over_training(members: Sequence[PlacedRun]) -> float:
    return mean(found.over_training for found in members)


def _accuracies(members: Sequence[PlacedRun]) -> Numbers:
    return np.array([found.run.accuracy for found in members])


def _add_placement(placement: str, members: Sequence[PlacedRun], metric: str, findings: Findings) -> None:
    name, accuracies = placement.replace(",", "_").replace("-", "_"), _accuracies(members)
    columns = [layer_column(metric, layer) for layer in range(len(members[0].layers))]
    layers = [mean(found.run.last[column] for found in members) for column in columns]
    findings.add(f"{name}_accuracy", of_mean(accuracies))
    findings.figures[f"{name}_accuracy_over_training"] = _over_training(members)
    findings.figures |= {f"{name}_ess_layer_{layer}": ess for layer, ess in enumerate(layers)}
    findings.statements.append(
        f"{placement}: accuracy {accuracies.mean():.2f} ({len(members)} runs, {accuracies.min():.2f} to "
        f"{accuracies.max():.2f}), {_over_training(members):.2f} on average over training; ESS of the layers "
        f"({metric}) {', '.join(f'{ess:.1f}' for ess in layers)}."
    )


def _add_winner(placements: dict[str, list[PlacedRun]], findings: Findings) -> None:
    """What the best placement gains on the second, trial by trial."""
    best, second, *_ = placements
    runs, others = ([found.run for found in placements[name]] for name in (best, second))
    gain = findings.add("best_less_second", of_mean(paired_differences(others, runs, "mixer")))
    findings.statements.append(f"{best} comes first, before {second} by {gain}.")


def _add_foresights(runs: Sequence[PlacedRun], metric: str, findings: Findings) -> None:
    """What each early number tells."""
    known: dict[str, tuple[str, Callable[[PlacedRun], float]]] = {
        "early": (f"early ESS ({metric})", lambda found: number(found.early, metric)),
        "early_entropy": ("early ESS (entropy)", lambda found: number(found.early, "entropy")),
        "early_gated": (
            "early ESS of the other layers",
            lambda found: mean_ess(found, found.early, metric, attention=False),
        ),
        "early_attention": (
            "early ESS of the attention",
            lambda found: mean_ess(found, found.early, metric, attention=True),
        ),
        "control_initial_attention": (
            "the control, ESS of the attention at initialisation,",
            lambda found: mean_ess(found, found.run.first, metric, attention=True),
        ),
        "control_initial": ("the control, ESS at initialisation,", lambda found: number(found.run.first, metric)),
        "control_place": ("the control, how early the attention stands,", lambda found: -mean(found.places)),
        "control_early_accuracy": ("the control, early accuracy,", lambda found: number(found.early, "accuracy")),
    }
    for name, (words, early) in known.items():
        over_all, inside = foresight(runs, name, findings, early)
        findings.statements.append(
            f"Spearman of {words} with final accuracy: {over_all}; in one setting, with as many attention layers, "
            f"{inside}."
        )
        if name == "early_attention":
            _add_beyond(runs, metric, findings)
    over_all, inside = foresight(runs, "early_over_training", findings, known["early"][1], _accuracy_over_training)
    findings.statements.append(
        f"Spearman of {known['early'][0]} with the accuracy averaged over training, which tells those apart that end "
        f"alike: {over_all}; in one setting, with as many attention layers, {inside}."
    )
    attention = spearman(*_numbers(runs, lambda found: float(found.attention))[1:])
    layers = min((len(found.layers) for found in runs), default=0)
    columns = [layer_column(metric, layer) for layer in range(layers)]
    single = [
        spearman(*_numbers(runs, lambda found, column=column: number(found.early, column))[1:]) for column in columns
    ]
    findings.figures["control_attention_spearman"] = attention
    findings.figures |= {f"early_layer_{layer}_spearman": value for layer, value in enumerate(single)}
    findings.statements.append(
        "Spearman with final accuracy over all runs, without intervals: early ESS of each layer "
        f"{', '.join(f'{value:.2f}' for value in single)}; the control, the number of attention layers, "
        f"{attention:.2f}."
    )


_FIRST = palette("first", "First attention layer")
_ROW = 14
"""Pixels of a placement, where there are many."""
_TOOLTIP = ["placement:N", "seed:Q", "rate:Q", rounded("accuracy", ".3f"), "early:Q"]


def hybrids_charts(rows: Sequence[Row], metric: str) -> alt.VConcatChart:
    """Accuracy and ESS per layer of each placement, accuracy over training, and early ESS against final accuracy."""
    runs = placed_runs(rows)
    finals = chart_data(_shown(found, metric) for found in runs)
    order = alt.EncodingSortField("accuracy", op="mean", order="descending")
    placement = alt.Y("placement:N", title="Layers", sort=order, axis=alt.Axis(labelLimit=300))
    accuracy = alt.X("accuracy:Q", title="Accuracy", axis=percent())
    base = alt.Chart(finals, title="Accuracy of each placement: runs and their mean").encode(y=placement)
    single = base.mark_point(filled=True, opacity=0.6).encode(
        x=accuracy, color=palette("attention", "Attention layers"), tooltip=_TOOLTIP
    )
    means = base.mark_tick(thickness=3, color="#808080").encode(x="mean(accuracy):Q")
    layers = chart_data(
        _shown(found, metric) | {"layer": layer, "ess": found.run.last[layer_column(metric, layer)]}
        for found in runs
        for layer in range(len(found.layers))
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
    height = max(SIDE, _ROW * len({found.placement for found in runs}))
    return alt.vconcat(
        alt.hconcat(
            (single + means).properties(width=SIDE, height=height),
            (ess + numbers).properties(width=SIDE, height=height),
        ).resolve_scale(color="independent"),
        alt.hconcat(_over_training_charts(rows, runs), early),
    ).resolve_scale(color="independent")


def _over_training_charts(rows: Sequence[Row], runs: Sequence[PlacedRun]) -> alt.Chart:
    """Mean accuracy of each placement by step."""
    placed = {found.run.last["run"]: _place(found) for found in runs}
    data = chart_data(
        {"step": row["step"], "accuracy": row["accuracy"]} | placed[row["run"]] for row in rows if row["run"] in placed
    )
    chart = alt.Chart(data, title="Accuracy over training, means").mark_line()
    return chart.encode(
        x=alt.X("step:Q", title="Step"),
        y=alt.Y("mean(accuracy):Q", title="Accuracy", axis=percent()),
        color=_FIRST,
        detail="placement:N",
        tooltip=["placement:N", "step:Q", rounded("mean(accuracy)", ".3f")],
    ).properties(width=SIDE, height=SIDE)


def _shown(found: PlacedRun, metric: str) -> dict[str, object]:
    return _place(found) | {
        "attention": found.attention,
        "rate": found.run.rate,
        "seed": found.run.seed,
        "accuracy": found.run.accuracy,
        "early": mean_ess(found, found.early, metric, attention=True),
    }


def _place(found: PlacedRun) -> dict[str, object]:
    return {"placement": found.placement, "first": str(found.places[0]) if found.places else "none"}
