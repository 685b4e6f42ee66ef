"""Does accuracy go with ESS where symbols are repeated? `python -m benchmarks.claims.copying FILE`.

The record of `statesize study correlation` is of recall, with 24 runs of selective copying and none of compression.
Here both tasks have runs of their own, each from a seed of its own: four of every setting, so that runs of a setting
differ in their seed only. About 25 minutes of one core. The claim was fixed before these runs; a run that is done is
not done again.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.claims.judged import judged
from benchmarks.claims.runs import METRIC, finish_runs, small_run
from statesize.lab.studies.engine.final import numbered
from statesize.lab.studies.engine.training import carry_out
from statesize.lab.studies.statistics import Evidence, Indices, Numbers, jackknife, within_cells
from statesize.lab.studies.verdicts import Claim
from statesize.lab.tasks import Compression, SelectiveCopying

MIXERS, REPEATS, FIRST_SEED = ("la", "gla", "wla"), 4, 4000
TASKS = {
    "compression": (Compression, {}, (32, 48), (4, 8)),
    "selective copying": (SelectiveCopying, {"length": 128}, (8, 16), (4, 8, 16)),
}
"""The task, its other numbers, its symbols, and key sizes of models."""
TRAINING = {
    "compression": {"steps": 800, "batch_size": 16},
    "selective copying": {"steps": 1000, "batch_size": 8},
}
CLAIM = Claim(
    statement="Among runs that differ in their seed only, those with the higher ESS/kv (entropy) have the higher "
    "accuracy (r above 0): in compression, and in selective copying.",
    unit="setting of a task: its symbols, the mixer and the size of its state",
    least_units=12,
    pilot="two runs of each of 12 settings of compression, .49 [-.22, .86] by entropy and .18 [-.11, .45] by "
    "relative_0.01; the 24 runs of selective copying on record, .78 [.09, .96] and .75 [.06, .96]",
    thresholds={"compression": 0.0, "selective copying": 0.0},
)


def main(path: Path) -> None:
    """Do the runs that are not there."""
    finish_runs(path, names(), one_run, conclusion)


def names() -> Iterator[dict[str, Any]]:
    """What names each run."""
    seed = FIRST_SEED
    for _ in range(REPEATS):
        for name, (_, _, symbols, sizes) in TASKS.items():
            for kv, mixer, key_size in product(symbols, MIXERS, sizes):
                yield {"task": name, "kv": kv, "mixer": mixer, "key_size": key_size, "seed": seed}
                seed += 1


def one_run(task: str, kv: int, mixer: str, key_size: int, seed: int) -> dict[str, Any]:
    """A model before and after its training."""
    start = time.process_time()
    kind, others, _, _ = TASKS[task]
    learned = kind(tokens=kv, **others)
    shape = {"mixer": mixer, "key_size": key_size, "width": 64, "decay_bias": 3.0, "tied": False}
    run = small_run(learned, shape | {"positions": learned.length + 1}, TRAINING[task] | {"seed": seed})
    first, *_, last = carry_out(run)
    return {
        "accuracy": last["accuracy"],
        "chance": last["chance"],
        "entropy": last["entropy"],
        "initial_entropy": first["entropy"],
        "relative": last[METRIC],
        "norm": last["norm"],
        "seconds": round(time.process_time() - start, 1),
    }


def conclusion(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The verdict; the same with ESS at initialisation, another tolerance and the norm."""
    columns = {"": "entropy", "at initialisation": "initial_entropy", METRIC: "relative", "norm": "norm"}
    evidence: dict[str, Evidence] = {}
    for task, (words, column) in product(TASKS, columns.items()):
        of_task = [row for row in rows if row["task"] == task]
        settings = numbered([(row["kv"], row["mixer"], row["key_size"]) for row in of_task])
        per_symbol = np.array([row[column] / row["kv"] for row in of_task])
        accuracy = np.array([row["accuracy"] for row in of_task])
        evidence[f"{task} {words}".strip()] = inside(per_symbol, accuracy, settings)
    return judged(CLAIM, evidence)


def inside(x: Numbers, y: Numbers, settings: Indices) -> Evidence:
    """The correlation of what x and y differ by from the means of their settings, which are the units."""
    x, y = within_cells(x, settings), within_cells(y, settings)

    def of(rows: Indices) -> float:
        scale = float(np.sqrt((x[rows] @ x[rows]) * (y[rows] @ y[rows])))
        return float(x[rows] @ y[rows]) / scale if scale > 1e-12 else float("nan")

    return jackknife(of, settings, correlation=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
