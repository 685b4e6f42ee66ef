"""Do gates that start open still leave states unused? `python -m benchmarks.claims.open_gates FILE`.

Linear attention is compared with gated linear attention whose gates start open, where both learn the task: the record
of `statesize study regimes` compares models that learned with models that did not. Each pair of models has a seed of
its own. About 30 minutes of one core. The claim was fixed before these runs; a run that is done is not done again.
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
from statesize.lab.studies.engine.training import carry_out
from statesize.lab.studies.statistics import of_mean
from statesize.lab.studies.verdicts import Claim
from statesize.lab.tasks.mqar import MQAR

PAIRS, REPEATS, FIRST_SEED = (20, 24, 28, 32, 36, 40), 5, 3000
LEARNED, MATCHED = 0.8, 0.1
CLAIM = Claim(
    statement="Where gates start open (a = 0.997) and both models learn the task (accuracies above 0.8 that differ by "
    "at most 0.1), la uses a larger share of its state of 16 numbers than gla (utilisation_relative_0.01, over the "
    "cuts where the state is what binds).",
    unit="pair of an la and a gla that learned, with a seed of its own",
    least_units=12,
    pilot="the runs with 16 numbers in the record of `statesize study correlation`: 13 of 22 pairs were matched so, "
    "with a difference of .09 ± .10; with 8 numbers .05 ± .04 (7), with 32 −.01 ± .07 (10)",
    thresholds={"la less gla": 0.0},
)


def main(path: Path) -> None:
    """Do the runs that are not there."""
    finish_runs(path, names(), one_run, conclusion)


def names() -> Iterator[dict[str, Any]]:
    """What names each run."""
    for seed, (_, kv) in enumerate(product(range(REPEATS), PAIRS), start=FIRST_SEED):
        for mixer in ("la", "gla"):
            yield {"mixer": mixer, "kv": kv, "seed": seed}


def one_run(mixer: str, kv: int, seed: int) -> dict[str, Any]:
    """A model before and after its training."""
    start = time.process_time()
    model = {"mixer": mixer, "key_size": 16, "width": 64, "decay_bias": 3.0, "tied": False}
    training = {"steps": 1000, "batch_size": 8, "seed": seed}
    first, *_, last = carry_out(small_run(MQAR(pairs=kv, length=128, vocabulary_size=128), model, training))
    return {
        "accuracy": last["accuracy"],
        "initial_utilisation": first[f"utilisation_{METRIC}"],
        "utilisation": last[f"utilisation_{METRIC}"],
        "utilisation_entropy": last["utilisation_entropy"],
        "seconds": round(time.process_time() - start, 1),
    }


def conclusion(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The verdict; the same before training, by entropy, and over all pairs of models."""
    found = {(row["mixer"], row["seed"]): row for row in rows}
    pairs = [(found["la", seed], row) for (mixer, seed), row in found.items() if mixer == "gla"]
    learned = [pair for pair in pairs if matched(*(row["accuracy"] for row in pair))]

    def less(of: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]], name: str) -> Any:
        return of_mean(np.array([full[name] - gated[name] for full, gated in of]))

    return judged(
        CLAIM,
        {
            "la less gla": less(learned, "utilisation"),
            "by entropy": less(learned, "utilisation_entropy"),
            "before training": less(learned, "initial_utilisation"),
            "in accuracy": less(learned, "accuracy"),
            "over all pairs of models": less(pairs, "utilisation"),
        },
    )


def matched(full: float, gated: float) -> bool:
    """Whether both learned the task, and about as well."""
    return min(full, gated) > LEARNED and abs(full - gated) <= MATCHED


if __name__ == "__main__":
    main(Path(sys.argv[1]))
