"""What runs of `correlation` that differ in their seed only tell: on other scales, by other measures, in few pairs."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from statesize.lab.studies.engine.final import PLATEAU, StudyTable, numbered
from statesize.lab.studies.statistics import (
    Evidence,
    Indices,
    Numbers,
    jackknife,
    numbers,
    pearson,
    spearman,
    within_cells,
)
from tools.figures.on_record import METRIC, rows_of, table

MEASURES = {
    METRIC: "count above 1 % of the largest singular value (the claim)",
    "relative_0.001": "count above 0.1 % of it",
    "entropy": "entropy-ESS",
    "tolerance_0.001": "count above τ = 0.001, absolute",
    "norm": "norm",
}
_FEW = 10
"""Pairs of seeds, those whose accuracies differ most."""


def seeds() -> dict[str, str]:
    """The lead of ESS/kv over TSS/kv on several scales, correlations by measure, and how few pairs carry them."""
    runs = [run for run in StudyTable(rows_of("correlation"), METRIC).runs if run.task == "mqar"]
    kv, accuracy = numbers(run.kv for run in runs), numbers(run.accuracy for run in runs)
    ess = numbers(run.ess for run in runs) / kv
    size = numbers(run.state_size for run in runs) / kv
    off_plateau = np.flatnonzero(accuracy > PLATEAU * numbers(run.chance for run in runs))
    cells, alike = numbered([run.cell for run in runs]), numbered([run.but_for("seed") for run in runs])

    def lead(of: Callable[[Numbers, Numbers], float], x: Numbers, y: Numbers, rows: Indices) -> str:
        x, y, told = x[rows], y[rows], accuracy[rows]
        return _shown(jackknife(lambda kept: of(x[kept], told[kept]) - of(y[kept], told[kept]), cells[rows]))

    def inside(x: Numbers, rows: Indices) -> str:
        x, y = (within_cells(values[rows], alike[rows]) for values in (x, accuracy))
        return _shown(jackknife(lambda kept: pearson(x[kept], y[kept]), cells[rows], correlation=True))

    everything = np.arange(len(runs))
    measures = {name: numbers(run.last[name] for run in runs) / (1 if name == "norm" else kv) for name in MEASURES}
    table_rows = [
        (words, inside(measures[name], everything), inside(measures[name], off_plateau))
        for name, words in MEASURES.items()
    ]
    x, y = within_cells(ess, alike), within_cells(accuracy, alike)
    spread = np.bincount(alike, y * y)
    most = np.argsort(-spread)[:_FEW]
    others = ~np.isin(alike, most)
    return {
        "logarithms": lead(pearson, np.log(ess), np.log(size), everything),
        "ranks": lead(spearman, ess, size, everything),
        "off_plateau": lead(spearman, ess, size, off_plateau),
        "pairs": str(len(spread)),
        "few": f"{spread[most].sum() / spread.sum():.0%}",
        "without": f"{pearson(x[others], y[others]):.2f}",
        "measures": table(("measure", "r with accuracy", "runs off the plateau only"), table_rows),
    }


def _shown(evidence: Evidence) -> str:
    return str(evidence.interval())
