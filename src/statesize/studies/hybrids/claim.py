"""The study of hybrids: where among gated layers should attention stand, and does ESS show it early?

Parnichkun et al., "Quantifying Memory Utilization with Effective State-Size", ICML 2025, arXiv 2504.19561, compare
hybrids by the ESS of their layers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from statesize.studies.grid.run import Row, layer_column
from statesize.studies.hybrids.placements import ATTENTION, EARLY, PlacedRun, number, placed_runs
from statesize.studies.page.conclusion import Conclusion, Figure
from statesize.studies.page.final import diverged, diverged_statement, numbered
from statesize.studies.page.statistics import Interval, Numbers, bootstrap, spearman, within_cells

# Of each interval; there are many, and few placements to draw from.
_DRAWS = 400

CAVEATS = (
    "One task, one size and a few hundred steps: which placement wins depends on all of them. In the presets, short "
    "convolutions before every mixer let a single attention layer find the value beside a key.",
    "The cache of attention grows with the sequence, so its ESS may pass n and the number of attention layers alone "
    "moves an average over layers. The claim is therefore also tested among placements with as many of them.",
    "The runs of one placement are not independent of each other; intervals are from resampled placements, of which "
    "there are few. The difference between the two best is of a winner that was chosen after the fact.",
    "Figures for single layers, for the attention and for the other layers alone are several looks at the same runs: "
    "hypotheses for another grid, not findings of this one.",
)


@dataclass(frozen=True)
class Foresight:
    """How one number that is known early ranks runs by what comes of them.

    Attributes:
        early: The number, (N,).
        outcome: What comes, (N,).
        placements: Number of the placement of each run, (N,).
        attention: How many attention layers each run has, (N,).
    """

    early: Numbers
    outcome: Numbers
    placements: NDArray[np.int64]
    attention: NDArray[np.int64]

    @classmethod
    def of(
        cls,
        runs: Sequence[PlacedRun],
        known: Callable[[PlacedRun], float],
        outcome: Callable[[PlacedRun], float] = lambda found: found.run.accuracy,
    ) -> Foresight:
        """The foresight of a number.

        Args:
            runs: The runs.
            known: The number of a run; those of which it is NaN are left out.
            outcome: What comes of a run; the accuracy at the end if not given.

        Returns:
            The foresight.
        """
        runs = [found for found in runs if not math.isnan(known(found))]
        early, later = np.array([known(found) for found in runs]), np.array([outcome(found) for found in runs])
        placements, attention = ([found.placement for found in runs], [found.attention for found in runs])
        return cls(early, later, numbered(placements), numbered(attention))

    @property
    def value(self) -> float:
        """Spearman's correlation over all runs."""
        return spearman(self.early, self.outcome)

    @cached_property
    def over_all(self) -> Interval:
        """The same with its interval."""
        return bootstrap(lambda rows: spearman(self.early[rows], self.outcome[rows]), self.placements, draws=_DRAWS)

    @cached_property
    def inside(self) -> Interval:
        """The same of what is left of both when the means of runs with as many attention layers are taken off."""

        def left(rows: NDArray[np.int64]) -> float:
            cells = self.attention[rows]
            return spearman(within_cells(self.early[rows], cells), within_cells(self.outcome[rows], cells))

        return bootstrap(left, self.placements, draws=_DRAWS)


def hybrids(rows: Sequence[Row], metric: str) -> Conclusion:
    """What a grid says about placements of attention.

    Args:
        rows: All rows of the study.
        metric: Column of the metric for which the claim is made, named before the runs were.

    Returns:
        The conclusion.
    """
    runs = placed_runs(rows)
    figures: dict[str, Figure] = {"diverged": float(diverged(rows))}
    statements: list[str] = []
    placements = _by_accuracy(runs)
    for placement, members in placements.items():
        figures |= _of_placement(placement, members, metric)
        statements.append(_placement_statement(placement, members, metric))
    if len(placements) > 1:
        statements.append(_winner(placements, figures))
    claimed, said = _foresights(runs, metric, figures)
    statements += said
    if runs:
        shares = sorted({float(found.early["step"]) / float(found.run.last["step"]) for found in runs})
        statements.append(f"Early is after {' and '.join(f'{share:.0%}' for share in shares)} of the steps.")
    statements += diverged_statement(rows)
    lows = [claimed.over_all.low, claimed.inside.low]
    holds = None if np.isnan(lows).any() else min(lows) > 0
    claim = (
        f"The ESS averaged over layers ({metric}) after {EARLY:.0%} of training ranks hybrids by their accuracy at the "
        "end (the interval of Spearman's correlation lies above 0), over all placements and among those with as many "
        "attention layers."
    )
    return Conclusion("hybrids", claim, holds, figures, tuple(statements), CAVEATS)


def _by_accuracy(runs: Sequence[PlacedRun]) -> dict[str, list[PlacedRun]]:
    """The runs of each placement, the most accurate first; of those that end alike, the one that learns sooner."""
    groups: dict[str, list[PlacedRun]] = {}
    for found in runs:
        groups.setdefault(found.placement, []).append(found)
    ranked = {name: (_accuracies(members).mean(), _over_training(members)) for name, members in groups.items()}
    return {name: groups[name] for name in sorted(groups, key=lambda name: ranked[name], reverse=True)}


def _over_training(members: Sequence[PlacedRun]) -> float:
    return float(np.mean([found.over_training for found in members]))


def _accuracies(members: Sequence[PlacedRun]) -> Numbers:
    return np.array([found.run.accuracy for found in members])


def _mean(values: Numbers) -> Interval:
    return bootstrap(lambda rows: float(values[rows].mean()), np.arange(len(values)))


def _layer_means(members: Sequence[PlacedRun], metric: str) -> list[float]:
    layers = range(len(members[0].layers))
    return [
        float(np.mean([number(found.run.last, layer_column(metric, layer)) for found in members])) for layer in layers
    ]


def _of_placement(placement: str, members: Sequence[PlacedRun], metric: str) -> dict[str, Figure]:
    name, accuracy = placement.replace(",", "_").replace("-", "_"), _mean(_accuracies(members))
    return {
        f"{name}_accuracy": accuracy.value,
        f"{name}_accuracy_interval": (accuracy.low, accuracy.high),
        f"{name}_accuracy_over_training": _over_training(members),
        **{f"{name}_ess_layer_{layer}": ess for layer, ess in enumerate(_layer_means(members, metric))},
    }


def _placement_statement(placement: str, members: Sequence[PlacedRun], metric: str) -> str:
    accuracy = _accuracies(members)
    ess = ", ".join(f"{mean:.1f}" for mean in _layer_means(members, metric))
    return (
        f"{placement}: accuracy {accuracy.mean():.2f} ({len(members)} runs, {accuracy.min():.2f} to "
        f"{accuracy.max():.2f}), {_over_training(members):.2f} on average over training; ESS of the layers "
        f"({metric}) {ess}."
    )


def _winner(placements: dict[str, list[PlacedRun]], figures: dict[str, Figure]) -> str:
    """What the best placement gains on the second, trial by trial."""
    best, second, *_ = placements
    accuracy = [{found.trial: found.run.accuracy for found in placements[name]} for name in (best, second)]
    both = accuracy[0].keys() & accuracy[1].keys()
    gain = _mean(np.array([accuracy[0][trial] - accuracy[1][trial] for trial in sorted(both, key=repr)]))
    figures["best_less_second"], figures["best_less_second_interval"] = gain.value, (gain.low, gain.high)
    return f"{best} comes first, before {second} by {gain}."


def _foresights(runs: Sequence[PlacedRun], metric: str, figures: dict[str, Figure]) -> tuple[Foresight, list[str]]:
    """That of the claim, and what is said of all; their figures are added."""
    layers = min((len(found.layers) for found in runs), default=0)
    known: dict[str, tuple[str, Callable[[PlacedRun], float]]] = {
        "early": (f"early ESS ({metric})", lambda found: number(found.early, metric)),
        "early_entropy": ("early ESS (entropy)", lambda found: number(found.early, "entropy")),
        "early_gated": ("early ESS of the other layers", lambda found: _among(found, found.early, metric, False)),
        "early_attention": ("early ESS of the attention", lambda found: _among(found, found.early, metric, True)),
        "control_initial_attention": (
            "the control, ESS of the attention at initialisation,",
            lambda found: _among(found, found.run.first, metric, True),
        ),
        "control_initial": ("the control, ESS at initialisation,", lambda found: number(found.run.first, metric)),
        "control_early_accuracy": ("the control, early accuracy,", lambda found: number(found.early, "accuracy")),
    }
    all_of_them = {name: Foresight.of(runs, early) for name, (_, early) in known.items()}
    statements: list[str] = []
    for name, found in all_of_them.items():
        for part, interval in (("spearman", found.over_all), ("spearman_inside", found.inside)):
            figures[f"{name}_{part}"] = interval.value
            figures[f"{name}_{part}_interval"] = (interval.low, interval.high)
        statements.append(
            f"Spearman of {known[name][0]} with final accuracy: {found.over_all}; among runs with as many "
            f"attention layers {found.inside}."
        )
    sooner = Foresight.of(runs, known["early"][1], lambda found: found.over_training)
    for part, interval in (("over_training", sooner.over_all), ("over_training_inside", sooner.inside)):
        figures[f"early_{part}_spearman"] = interval.value
        figures[f"early_{part}_spearman_interval"] = (interval.low, interval.high)
    statements.append(
        f"Of {known['early'][0]} with the accuracy averaged over training, which tells those apart that end alike: "
        f"{sooner.over_all}; among runs with as many attention layers {sooner.inside}."
    )
    attention = Foresight.of(runs, lambda found: float(found.attention))
    figures["control_attention_spearman"] = attention.value
    single = [Foresight.of(runs, _of_layer(metric, layer)).value for layer in range(layers)]
    figures |= {f"early_layer_{layer}_spearman": value for layer, value in enumerate(single)}
    each = ", ".join(f"{value:.2f}" for value in single)
    statements.append(
        f"Over all runs, without intervals: of the early ESS of each layer {each}; of the control, the number of "
        f"attention layers, {attention.value:.2f}."
    )
    return all_of_them["early"], statements


def _of_layer(metric: str, layer: int) -> Callable[[PlacedRun], float]:
    return lambda found: number(found.early, layer_column(metric, layer))


def _among(found: PlacedRun, row: Row, metric: str, attention: bool) -> float:
    """The mean ESS of the layers that are attention, or that are not; NaN if there are none."""
    layers = [layer for layer, mixer in enumerate(found.layers) if (mixer == ATTENTION) == attention]
    return float(np.mean([number(row, layer_column(metric, layer)) for layer in layers])) if layers else math.nan
