"""Does ESS add to what one would use otherwise? `python -m tools.beyond` repeats runs on record and measures that too.

Runs that the file of results holds are not repeated: a stopped command goes on, and the table alone is made anew.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from benchmarks.cases import made
from statesize.io.files import replace_file
from statesize.lab.studies import study as studies
from statesize.lab.studies.engine.record import read_rows
from statesize.lab.studies.engine.statistics import Numbers, ranks, within_cells
from statesize.lab.studies.engine.table import FinalRun, StudyTable, numbered
from statesize.lab.studies.engine.verdicts import holm
from statesize.parallel.ray import RayCluster
from tools.alternatives import METRIC, measuring
from tools.figures.on_record import RESULTS

FILE = RESULTS / "findings" / "beyond.json"
STUDIES = ("regularisation", "regimes", "correlation")
WORKERS, DRAWS = 2, 9999

Cells: TypeAlias = NDArray[np.int64]
Measured: TypeAlias = dict[str, dict[str, dict[str, float]]]
"""What `measured` found, by study and run."""


def partial(x: Numbers, y: Numbers, others: NDArray[np.float64]) -> float:
    """Correlate residuals of x (N,) and y (N,) on others (K, N), all of which are centred in their groups."""
    x, y = _residuals(np.stack([x, y]), others)
    return float(x @ y) / math.sqrt(float(x @ x) * float(y @ y))


def permuted_p(x: Numbers, y: Numbers, others: NDArray[np.float64], groups: Cells) -> float:
    """Two-sided p of `partial`, from residuals of y that are permuted inside groups (Freedman and Lane 1983)."""
    order = np.argsort(groups, kind="stable")
    x, y, others, groups = x[order], y[order], others[:, order], groups[order]
    left = _residuals(y[None], others)[0]
    drawn = np.argsort(np.random.default_rng(0).random((DRAWS, len(x))) + groups, axis=1)
    again, ess = _residuals(left[drawn], others), _residuals(x[None], others)[0]
    found = np.abs(again @ ess) / np.sqrt((again**2).sum(1) * (ess @ ess))
    return float((1 + np.sum(found >= abs(partial(x, y, others)) - 1e-12)) / (1 + DRAWS))


def _residuals(rows: NDArray[np.float64], others: NDArray[np.float64]) -> NDArray[np.float64]:
    return rows - rows @ np.linalg.pinv(others) @ others


def compared(accuracy: Numbers, ess: Numbers, alternatives: dict[str, Numbers], alike: Cells) -> list[dict[str, Any]]:
    """Correlate ranks of ESS and of each alternative with accuracy among runs that differ in their seed only.

    Args:
        accuracy: Accuracies (N,).
        ess: ESS (N,).
        alternatives: Numbers (N,) by name; NaN where a run has none.
        alike: Numbers (N,) that are equal for runs that differ in their seed only.

    Returns:
        A row for each alternative and one for all together, each from the runs that have them.
    """
    sets = {name: values[None] for name, values in alternatives.items()}
    sets["all of these"] = np.stack(list(alternatives.values()))
    rows: list[dict[str, Any]] = []
    for name, values in sets.items():
        there = np.isfinite(values).all(0)
        found = _compared(np.stack([ess, accuracy, *values])[:, there], alike[there])
        rows.append({"alternative": name, **found})
    for row, p in zip(rows, holm([row["p"] for row in rows]), strict=True):
        row["adjusted_p"] = p
    return rows


def _compared(numbers: NDArray[np.float64], alike: Cells) -> dict[str, Any]:
    """The row of ESS, accuracy and alternatives (2 + K, N)."""
    ess, accuracy, *known = (within_cells(ranks(row), alike) for row in numbers)
    others, nothing = np.stack(known), np.zeros((1, len(ess)))
    row = {
        "runs": len(ess),
        "groups": len(np.unique(alike)),
        "ess": partial(ess, accuracy, nothing),
        "ess_given": partial(ess, accuracy, others),
        "p": permuted_p(ess, accuracy, others, alike),
    }
    if len(others) == 1:
        row |= {"other": partial(others[0], accuracy, nothing), "other_given": partial(others[0], accuracy, ess[None])}
    return row


def _runs(study: str) -> Sequence[FinalRun]:
    return StudyTable(read_rows(RESULTS / "studies" / study), METRIC).runs


def analysed(repeated: Measured) -> list[dict[str, Any]]:
    """Ask every study.

    Args:
        repeated: What was measured of all runs on record.

    Returns:
        Rows of `compared`, each with its study.
    """
    rows: list[dict[str, Any]] = []
    for study in STUDIES:
        runs = _runs(study)
        again = [repeated[study][str(run.last["run"])] for run in runs]
        columns = {name: np.array([one.get(name, math.nan) for one in again]) for name in sorted(again[0])}
        alike = numbered([run.settings_without("seed") for run in runs])
        found = compared(columns.pop("accuracy"), columns.pop("ess"), columns, alike)
        rows += [{"study": study, **row} for row in found]
    return rows


def differences(repeated: Measured) -> dict[str, float]:
    """The largest difference of a repeated run's accuracy from that on record, by study; 0 on the same processor."""
    return {
        study: max(abs(repeated[study][str(run.last["run"])]["accuracy"] - run.accuracy) for run in _runs(study))
        for study in STUDIES
    }


def repeat(repeated: Measured) -> Iterator[None]:
    """Repeat the runs on record that are not among those repeated, and add each to them.

    Args:
        repeated: What was measured before.

    Yields:
        Nothing, after each run.
    """
    for study in STUDIES:
        kept = repeated.setdefault(study, {})
        finished, known = {str(run.last["run"]) for run in _runs(study)}, studies[study]()
        runs = {run.key: run for run in known.runs(known.preset("record")) if run.key in finished}
        left = [task for task in runs.items() if task[0] not in kept]
        with RayCluster(processes=WORKERS)(measuring) as workers:
            for done in workers(left):
                kept[done.task[0]] = done.get()
                print(study, f"{len(kept)} of {len(runs)}", kept[done.task[0]], flush=True)
                yield


def main() -> None:
    """Repeat what is left, then write the table."""
    repeated: Measured = json.loads(FILE.read_text("utf-8"))["repeated"] if FILE.exists() else {}
    document: dict[str, Any] = {"made": made(), "metric": METRIC, "draws": DRAWS}
    for _ in repeat(repeated):
        _write(document | {"repeated": repeated})
    _write(document | {"repeated": repeated, "differences": differences(repeated), "rows": analysed(repeated)})


def _write(document: dict[str, Any]) -> None:
    replace_file(FILE, json.dumps(document, indent=1).encode() + b"\n")


if __name__ == "__main__":
    main()
