"""The study of correlation: does ESS per key-value pair tell accuracy better than the size of the state does?

Parnichkun et al., "Quantifying Memory Utilization with Effective State-Size", ICML 2025, section 4.1.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from statesize.studies.grid.run import Row
from statesize.studies.page.conclusion import Conclusion, Figure, Findings
from statesize.studies.page.final import FinalRun, final_runs, grid_findings, grouped, numbered
from statesize.studies.page.statistics import (
    Interval,
    Numbers,
    bootstrap,
    bootstrap_correlation,
    mean,
    pearson,
    spearman,
)

PLATEAU = 1.5
"""A run has left the plateau of guessing when its accuracy is above this many times chance."""

LEAST_INSIDE_CELLS, LEAST_ABOVE_CONTROL = 0.5, 0.2
"""The claim asks for this correlation inside cells, and this much less of it for the ESS at initialisation."""

CAVEATS = (
    "Part of the pooled difference is geometry: no ESS can exceed min(n, i, L − i), so ESS/kv correlates with accuracy "
    "before anything is learned (see the control over all cells). The claim that stands on its own is the correlation "
    "inside cells of equal TSS and kv, with the ESS at initialisation as its control.",
    "Runs that never leave the plateau of guessing carry part of every correlation. All figures are given with and "
    "without these runs.",
    "Rates are part of the grid. Figures are given for all rates and for the best rate of each configuration. Rank "
    "correlations at the best rates leave little between ESS and TSS.",
    "These are small models, a few hundred steps and one machine. Softmax attention solves the recall task everywhere "
    "and is left out, because a constant has no correlation.",
)


@dataclass(frozen=True)
class Association:
    """How accuracy goes with state sizes over some runs."""

    runs: int
    difference: Interval  # Pearson's correlation of accuracy with ESS/kv less that with TSS/kv
    inside: Interval  # correlation of what is left of ESS/kv and accuracy when the means of their cells are taken off
    control: Interval  # the same with the ESS at initialisation
    figures: dict[str, Figure]  # all of it by name; names of controls begin with control_

    @classmethod
    def of(cls, runs: Sequence[FinalRun], metric: str) -> Association:
        """The association over some runs, by a column of ESS."""
        kv, accuracy = _numbers(run.kv for run in runs), _numbers(run.accuracy for run in runs)
        ess, initial = _numbers(run.last[metric] for run in runs), _numbers(run.first[metric] for run in runs)
        ess, initial, size = ess / kv, initial / kv, _numbers(run.state_size for run in runs) / kv
        cells, clusters = numbered([run.cell for run in runs]), numbered([run.configuration for run in runs])

        def less(rows: NDArray[np.int64]) -> float:
            return pearson(ess[rows], accuracy[rows]) - pearson(size[rows], accuracy[rows])

        difference = bootstrap(less, clusters)
        inside, control = (bootstrap_correlation(pearson, x, accuracy, clusters, cells) for x in (ess, initial))
        found = Findings({"runs": float(len(runs))})
        found.figures |= {"pearson_ess": pearson(ess, accuracy), "pearson_tss": pearson(size, accuracy)}
        found.add("pearson_difference", difference)
        found.figures |= {"spearman_ess": spearman(ess, accuracy), "spearman_tss": spearman(size, accuracy)}
        found.add("inside_cells", inside)
        found.add("control_initial_inside_cells", control)
        found.figures["control_initial_pearson"] = pearson(initial, accuracy)
        return cls(len(runs), difference, inside, control, found.figures)

    @property
    def claim_holds(self) -> bool | None:
        """Whether the strict and the pooled form of the claim hold; None where a number is not known."""
        low, inside, control = self.difference.low, self.inside.value, self.control.value
        if not np.isfinite((low, inside, control)).all():
            return None
        return low > 0 and inside >= LEAST_INSIDE_CELLS and inside - control >= LEAST_ABOVE_CONTROL


def best_rates(runs: Sequence[FinalRun]) -> list[FinalRun]:
    """The runs of each configuration at the rate that gave the highest mean accuracy."""
    best: dict[Hashable, float] = {}
    for name, members in grouped(runs, lambda run: run.configuration).items():
        rates = grouped(members, lambda run: run.rate)
        best[name] = max(rates, key=lambda rate, rates=rates: mean(run.accuracy for run in rates[rate]))
    return [run for run in runs if run.rate == best[run.configuration]]


def correlation(rows: Sequence[Row], metric: str) -> Conclusion:
    """What a grid says about ESS, by the column `metric`, and accuracy; the claim is that of the grid's first task."""
    runs, findings = final_runs(rows), grid_findings(rows)
    tasks = list(dict.fromkeys(str(row["task"]) for row in rows))
    verdicts: list[bool | None] = []
    for task in [*tasks, *(["pooled"] if len(tasks) > 1 else [])]:
        for part, chosen in _parts([run for run in runs if task in {run.task, "pooled"}]).items():
            for column in (metric, "entropy"):
                found = Association.of(chosen, column)
                name = "_".join([task, *([part] if part != "all" else []), *(["entropy"] if column != metric else [])])
                findings.figures |= {_figure_name(figure, name): value for figure, value in found.figures.items()}
                findings.statements.append(_statement(task, part, column, found))
                if task == tasks[0] and column == metric and part in {"all", "off_plateau"}:
                    verdicts.append(found.claim_holds)
    # One part that is against the claim is enough, whatever cannot be told of another.
    holds = False if False in verdicts else None if None in verdicts else True
    return findings.conclusion("correlation", _claim(tasks[0], metric), holds, CAVEATS)


def _parts(runs: list[FinalRun]) -> dict[str, list[FinalRun]]:
    return {
        "all": runs,
        "best_rate": best_rates(runs),
        "off_plateau": [run for run in runs if run.accuracy > PLATEAU * run.chance],
    }


def _numbers(values: Iterable[object]) -> Numbers:
    return np.array(list(values), np.float64)


def _figure_name(figure: str, name: str) -> str:
    return f"control_{name}_{figure.removeprefix('control_')}" if figure.startswith("control_") else f"{name}_{figure}"


def _claim(task: str, metric: str) -> str:
    return (
        f"On {task}, accuracy goes with ESS/kv ({metric}) more than with TSS/kv (the interval of the difference of "
        f"Pearson's correlations lies above 0), and inside cells of equal TSS and kv by at least {LEAST_INSIDE_CELLS}, "
        f"where ESS at initialisation gives at least {LEAST_ABOVE_CONTROL} less; both with and without the runs that "
        "never left the plateau of guessing."
    )


def _statement(task: str, part: str, metric: str, found: Association) -> str:
    words = {"all": "all runs", "best_rate": "best rates", "off_plateau": "runs off the plateau"}[part]
    if found.runs < 3:
        return f"{task}, {words}: {found.runs} are too few for correlations."
    figures = found.figures
    return (
        f"{task}, {words} ({found.runs}): Pearson of accuracy with ESS/kv ({metric}) {figures['pearson_ess']:.2f}, "
        f"with TSS/kv {figures['pearson_tss']:.2f}, difference {found.difference}; Spearman "
        f"{figures['spearman_ess']:.2f} and {figures['spearman_tss']:.2f}. Inside cells {found.inside}; control, ESS "
        f"at initialisation: inside cells {found.control}, over all cells {figures['control_initial_pearson']:.2f}."
    )
