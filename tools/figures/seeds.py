"""What runs that differ in their seed only tell: on other scales, by other measures, in few pairs."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from experiments.rank import MEASURES as MEASURES_OF_RANK
from experiments.rank import STATELESS, rule_of
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
    """What `rank` gives beside its claim: the lead of ESS by ranks, how many rules lead, and ESS before training."""
    runs = [run for run in StudyTable(rows_of("rank"), METRIC).runs if run.mixer != STATELESS]
    cells = numbered([run.settings_without("seed") for run in runs])
    names = {name: MEASURES_OF_RANK[name] for name in ("ess", "state_rank", "stable_rank")}
    columns = {name: numbers(float(run.last[column]) / run.kv for run in runs) for name, column in names.items()}
    accuracy = numbers(run.accuracy for run in runs)
    by_ranks = {name: ranks_within(values, cells) for name, values in (columns | {"accuracy": accuracy}).items()}
    linear = {name: within_cells(values, cells) for name, values in (columns | {"accuracy": accuracy}).items()}
    rules = numbered([rule_of(run) for run in runs])

    def correlations(inside: Mapping[str, Numbers], rows: Indices) -> dict[str, float]:
        return {name: pearson(inside[name][rows], inside["accuracy"][rows]) for name in names}

    def lead(rows: Indices) -> float:
        found = correlations(by_ranks, rows)
        return found["ess"] - found["stable_rank"]

    ahead = 0
    for rule in np.unique(rules):
        found = correlations(linear, np.flatnonzero(rules == rule))
        ahead += max(found, key=found.__getitem__) == "ess"
    start = within_cells(numbers(float(run.first[MEASURES_OF_RANK["ess"]]) / run.kv for run in runs), cells)
    return {
        # For as many looks as the claim has.
        "by_ranks": str(jackknife(lead, cells).interval(2)),
        "ahead": f"{ahead} of {rules.max() + 1}",
        "start": _shown(correlation_evidence(start, linear["accuracy"], cells)),
    }


def fixed_decay() -> dict[str, str]:
    """In how many pairs of seeds of `variation` a fixed decay recalls as well as a varying one."""
    runs = [run for run in StudyTable(rows_of("variation"), METRIC).runs if run.task == "mqar"]
    fixed, varying = ({run.seed: run.accuracy for run in runs if run.mixer == mixer} for mixer in ("wla", "gla"))
    return {"as_well": f"{sum(accuracy > varying[seed] - 0.01 for seed, accuracy in fixed.items())} of {len(fixed)}"}


def _shown(evidence: Evidence) -> str:
    return str(evidence.interval())
