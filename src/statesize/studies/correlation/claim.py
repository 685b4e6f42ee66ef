"""The study of correlation: does ESS per key-value pair tell accuracy better than the size of the state does?

Parnichkun et al., "Quantifying Memory Utilization with Effective State-Size", ICML 2025, section 4.1.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from statesize.studies.grid.run import Row
from statesize.studies.page.conclusion import Conclusion, Figure
from statesize.studies.page.final import FinalRun, diverged, diverged_statement, final_runs, numbered
from statesize.studies.page.statistics import Interval, Numbers, bootstrap, pearson, spearman, within_cells

PLATEAU = 1.5
"""A run has left the plateau of guessing when its accuracy is above this many times chance."""

LEAST_INSIDE_CELLS, LEAST_ABOVE_CONTROL = 0.5, 0.2
"""The claim asks for this correlation inside cells, and this much less of it for the ESS at initialisation."""

CAVEATS = (
    "Part of the pooled difference is geometry: no ESS can pass min(n, i, L − i), so ESS/kv correlates with accuracy "
    "before anything is learned (see the control over all cells). The claim that stands on its own is the correlation "
    "inside cells of equal TSS and kv, with the ESS at initialisation as its control.",
    "Runs that never leave the plateau of guessing carry part of every correlation; all figures are given with and "
    "without them.",
    "Rates are part of the grid. Figures are given for all of them and for the best of each configuration; rank "
    "correlations of the best leave little between ESS and TSS.",
    "These are small models, a few hundred steps and one machine; softmax attention solves the recall task everywhere "
    "and is left out, because what does not vary has no correlation.",
)


@dataclass(frozen=True)
class Association:
    """How accuracy goes with state sizes over some runs; each has n, kv, and the ESS at its start and end.

    Attributes:
        accuracy: (N,).
        ess: ESS/kv at the end, (N,).
        initial: ESS/kv at the start, (N,).
        state_size: TSS/kv, (N,).
        cells: Number of the cell of equal task and TSS, (N,).
        clusters: Number of the configuration, whatever its rate and seed, (N,).
    """

    accuracy: Numbers
    ess: Numbers
    initial: Numbers
    state_size: Numbers
    cells: NDArray[np.int64]
    clusters: NDArray[np.int64]

    @classmethod
    def of(cls, runs: Sequence[FinalRun], metric: str) -> Association:
        """The association over some runs.

        Args:
            runs: The runs.
            metric: Column of the ESS.

        Returns:
            The association.
        """
        kv = _numbers(run.kv for run in runs)
        return cls(
            _numbers(run.accuracy for run in runs),
            _numbers(run.last[metric] for run in runs) / kv,
            _numbers(run.first[metric] for run in runs) / kv,
            _numbers(run.state_size for run in runs) / kv,
            numbered([run.cell for run in runs]),
            numbered([run.configuration for run in runs]),
        )

    @cached_property
    def difference(self) -> Interval:
        """Pearson's correlation of accuracy with ESS/kv less that with TSS/kv."""
        return bootstrap(
            lambda rows: (
                pearson(self.ess[rows], self.accuracy[rows]) - pearson(self.state_size[rows], self.accuracy[rows])
            ),
            self.clusters,
        )

    @cached_property
    def inside(self) -> Interval:
        """Correlation of what is left of ESS/kv and of accuracy when the means of their cells are taken off."""
        return bootstrap(lambda rows: self._inside(self.ess, rows), self.clusters)

    @cached_property
    def control(self) -> Interval:
        """The same with the ESS at initialisation."""
        return bootstrap(lambda rows: self._inside(self.initial, rows), self.clusters)

    def _inside(self, ess: Numbers, rows: NDArray[np.int64]) -> float:
        cells = self.cells[rows]
        return pearson(within_cells(ess[rows], cells), within_cells(self.accuracy[rows], cells))

    def figures(self) -> dict[str, Figure]:
        """All of it by name.

        Returns:
            Figures; those of controls begin with control_.
        """
        return {
            "runs": float(len(self.accuracy)),
            "pearson_ess": pearson(self.ess, self.accuracy),
            "pearson_tss": pearson(self.state_size, self.accuracy),
            "pearson_difference": self.difference.value,
            "pearson_difference_interval": (self.difference.low, self.difference.high),
            "spearman_ess": spearman(self.ess, self.accuracy),
            "spearman_tss": spearman(self.state_size, self.accuracy),
            "inside_cells": self.inside.value,
            "inside_cells_interval": (self.inside.low, self.inside.high),
            "control_initial_inside_cells": self.control.value,
            "control_initial_inside_cells_interval": (self.control.low, self.control.high),
            "control_initial_pearson": pearson(self.initial, self.accuracy),
        }

    @property
    def claim_holds(self) -> bool | None:
        """Whether the strict and the pooled form of the claim hold; None where a number is not known."""
        needed = (self.difference.low, self.inside.value, self.control.value)
        if not np.isfinite(needed).all():
            return None
        low, inside, control = needed
        return low > 0 and inside >= LEAST_INSIDE_CELLS and inside - control >= LEAST_ABOVE_CONTROL


def best_rates(runs: Sequence[FinalRun]) -> list[FinalRun]:
    """The runs of each configuration at the rate that gave the highest mean accuracy.

    Args:
        runs: Of any configurations.

    Returns:
        Some of them.
    """
    tried: dict[Hashable, dict[float, list[float]]] = {}
    for run in runs:
        tried.setdefault(run.configuration, {}).setdefault(run.rate, []).append(run.accuracy)
    best = {name: max(rates, key=lambda rate: np.mean(rates[rate])) for name, rates in tried.items()}
    return [run for run in runs if run.rate == best[run.configuration]]


def correlation(rows: Sequence[Row], metric: str) -> Conclusion:
    """What a grid says about ESS and accuracy.

    Args:
        rows: All rows of the study.
        metric: Column of the metric for which the claim is made, named before the runs were.

    Returns:
        The conclusion; the claim is that of the grid's first task.
    """
    runs = final_runs(rows)
    tasks = list(dict.fromkeys(str(row["task"]) for row in rows))
    figures: dict[str, Figure] = {"diverged": float(diverged(rows))}
    statements: list[str] = []
    verdicts: list[bool | None] = []
    for task in [*tasks, *(["pooled"] if len(tasks) > 1 else [])]:
        for part, chosen in _parts([run for run in runs if task in {run.task, "pooled"}]).items():
            for column in (metric, "entropy"):
                found = Association.of(chosen, column)
                name = "_".join([task, *([part] if part != "all" else []), *(["entropy"] if column != metric else [])])
                figures |= {_figure_name(figure, name): value for figure, value in found.figures().items()}
                statements.append(_statement(task, part, column, found))
                if task == tasks[0] and column == metric and part in {"all", "off_plateau"}:
                    verdicts.append(found.claim_holds)
    statements += diverged_statement(rows)
    # One part that is against the claim is enough, whatever cannot be told of another.
    holds = False if False in verdicts else None if None in verdicts else True
    return Conclusion("correlation", _claim(tasks[0], metric), holds, figures, tuple(statements), CAVEATS)


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
    if len(found.accuracy) < 3:
        return f"{task}, {words}: {len(found.accuracy)} are too few for correlations."
    figures, inside, control = found.figures(), found.inside, found.control
    return (
        f"{task}, {words} ({len(found.accuracy)}): Pearson of accuracy with ESS/kv ({metric}) "
        f"{figures['pearson_ess']:.2f}, with TSS/kv {figures['pearson_tss']:.2f}, difference "
        f"{found.difference}; Spearman "
        f"{figures['spearman_ess']:.2f} and {figures['spearman_tss']:.2f}. Inside cells {inside.value:.2f} "
        f"[{inside.low:.2f}, {inside.high:.2f}]; control, ESS at initialisation: inside cells {control.value:.2f} "
        f"[{control.low:.2f}, {control.high:.2f}], over all cells {figures['control_initial_pearson']:.2f}."
    )
