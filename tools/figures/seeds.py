"""What runs that differ in their seed only tell: on other scales, by other measures, in few pairs."""

from __future__ import annotations

import numpy as np

from experiments.rank import MEASURES as MEASURES_OF_RANK
from experiments.rank import STATELESS
from statesize.lab.studies.engine.statistics import (
    Evidence,
    Indices,
    Numbers,
    correlation_evidence,
    jackknife,
    numbers,
    pearson,
    ranks_within,
    spearman,
    within_cells,
)
from statesize.lab.studies.engine.table import PLATEAU, FinalRun, StudyTable, numbered
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
    """The lead of ESS/kv over TSS/kv by ranks, and correlations by measure."""
    runs = _runs()
    kv, accuracy = numbers(run.kv for run in runs), numbers(run.accuracy for run in runs)
    ess = numbers(run.ess for run in runs) / kv
    size = numbers(run.state_size for run in runs) / kv
    off_plateau = np.flatnonzero(accuracy > PLATEAU * numbers(run.chance for run in runs))
    cells, alike = numbered([run.cell for run in runs]), numbered([run.settings_without("seed") for run in runs])

    def lead(rows: Indices) -> str:
        x, y, told = ess[rows], size[rows], accuracy[rows]
        found = jackknife(lambda kept: spearman(x[kept], told[kept]) - spearman(y[kept], told[kept]), cells[rows])
        return _shown(found)

    def inside(x: Numbers, rows: Indices) -> str:
        x, y = (within_cells(values[rows], alike[rows]) for values in (x, accuracy))
        return _shown(jackknife(lambda kept: pearson(x[kept], y[kept]), cells[rows], correlation=True))

    everything = np.arange(len(runs))
    measures = {name: numbers(run.last[name] for run in runs) / (1 if name == "norm" else kv) for name in MEASURES}
    table_rows = [
        (words, inside(measures[name], everything), inside(measures[name], off_plateau))
        for name, words in MEASURES.items()
    ]
    return {
        "ranks": lead(everything),
        "off_plateau": lead(off_plateau),
        "measures": table(("measure", "r with accuracy", "runs off the plateau only"), table_rows),
    }


def few_pairs() -> tuple[int, float, float]:
    """How many pairs of seeds there are, the share of the variance of accuracy in the few, and r without these."""
    runs = _runs()
    alike = numbered([run.settings_without("seed") for run in runs])
    of_runs = (run.ess / run.kv for run in runs), (run.accuracy for run in runs)
    x, y = (within_cells(numbers(values), alike) for values in of_runs)
    spread = np.bincount(alike, y * y)
    most = np.argsort(-spread)[:_FEW]
    others = ~np.isin(alike, most)
    return len(spread), float(spread[most].sum() / spread.sum()), pearson(x[others], y[others])


def _runs() -> tuple[FinalRun, ...]:
    """The runs of MQAR on record."""
    return tuple(run for run in StudyTable(rows_of("correlation"), METRIC).runs if run.task == "mqar")


def rank() -> dict[str, str]:
    """What `rank` gives beside its claim: the lead of ESS over the stable rank by ranks, and ESS before training."""
    runs = [run for run in StudyTable(rows_of("rank"), METRIC).runs if run.mixer != STATELESS]
    cells, accuracy = numbered([run.settings_without("seed") for run in runs]), numbers(run.accuracy for run in runs)
    ess, stable = (
        ranks_within(numbers(float(run.last[MEASURES_OF_RANK[name]]) / run.kv for run in runs), cells)
        for name in ("ess", "stable_rank")
    )
    told = ranks_within(accuracy, cells)
    lead = jackknife(lambda kept: pearson(ess[kept], told[kept]) - pearson(stable[kept], told[kept]), cells)
    start = within_cells(numbers(float(run.first[MEASURES_OF_RANK["ess"]]) / run.kv for run in runs), cells)
    return {
        # For as many looks as the claim has.
        "by_ranks": str(lead.interval(2)),
        "start": _shown(correlation_evidence(start, within_cells(accuracy, cells), cells)),
    }


def _shown(evidence: Evidence) -> str:
    return str(evidence.interval())
