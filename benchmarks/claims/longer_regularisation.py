"""Longer training: `python -m benchmarks.claims.longer_regularisation FOLDER FILE`.

Does a regulariser only start sooner? The record of `statesize study regularisation` is of 600 steps, in which a faster
start alone may be taken for a gain. Here gated and weighted linear attention learn for 2,400, with three weights λ and
sixteen pairs of seeds. The grid and the claim, fixed before its runs, are in longer_regularisation.toml: `statesize
study regularisation --config benchmarks/claims/longer_regularisation.toml --output FOLDER` does the runs, about forty
minutes of one core, and this writes what they say.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np

from benchmarks.claims.judged import judged, write_judged
from statesize.lab.studies.engine.final import StudyTable
from statesize.lab.studies.engine.run import stored_rows
from statesize.lab.studies.regularisation import STUDY, Treatment
from statesize.lab.studies.statistics import of_mean
from statesize.lab.studies.verdicts import Claim

GRID = STUDY.read(Path(__file__).with_suffix(".toml"))
CLAIM = cast("Claim", GRID.claim)


def rows_of(folder: Path) -> list[dict[str, Any]]:
    """One row per run of a study that is done."""
    return [
        {
            **{"mixer": run.mixer, "weight": Treatment.of(run).identity_weight, "seed": run.seed},
            **{"accuracy": run.accuracy, "share": run.share},
        }
        for run in StudyTable(stored_rows(STUDY, GRID, folder), GRID.metric).runs
    ]


def conclusion(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The verdict; the gains of the other mixer and weight, and of the share of the state that is used (ESS/TSS)."""
    found = {(row["mixer"], row["weight"], row["seed"]): row for row in rows}
    treated = sorted({(mixer, weight) for mixer, weight, _ in found if weight})
    gains = {
        f"{mixer}_{weight:g}{ending}": of_mean(
            np.array(
                [
                    found[mixer, weight, seed][column] - found[mixer, 0.0, seed][column]
                    for *treatment, seed in found
                    if treatment == [mixer, weight] and (mixer, 0.0, seed) in found
                ]
            )
        )
        for column, ending in (("accuracy", ""), ("share", "_share"))
        for mixer, weight in treated
    }
    return judged(CLAIM, gains)


if __name__ == "__main__":
    runs = rows_of(Path(sys.argv[1]))
    write_judged(runs, conclusion(runs), Path(sys.argv[2]))
