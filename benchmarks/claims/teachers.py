"""Does the ESS of a teacher tell what a smaller student loses? `python -m benchmarks.claims.teachers FILE.json`.

96 teachers of gated linear attention, each from a seed of its own, with a student of 4 numbers per head each: the
setting of `statesize study distillation`, whose 24 teachers have two beginnings. About 40 minutes of one core. The
claim was fixed before these runs; a run that is done is not done again.
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
from benchmarks.claims.runs import finish_runs, small_run
from statesize.lab.studies.distillation import students_of
from statesize.lab.studies.engine.students import Distillation
from statesize.lab.studies.engine.training import carry_out
from statesize.lab.studies.statistics import Evidence, Numbers, correlation_evidence, mean, numbers, ranks, ranks_within
from statesize.lab.studies.verdicts import Claim
from statesize.lab.tasks.mqar import MQAR

PAIRS, WEIGHTS, TEACHERS, FIRST_SEED = (6, 10, 16, 24), (0.0, 0.1, 0.3), 8, 2000
CLAIM = Claim(
    statement="Among teachers of equally many pairs, the higher the entropy-ESS of a teacher, the mean over its "
    "layers, the larger the error of its operators in a student of 4 numbers (rank correlation above 0.3), and the "
    "more accuracy the student loses (above 0).",
    unit="teacher",
    least_units=48,
    pilot="the 24 teachers on record of `statesize study distillation`: .86 [.72, .93] and .60 [.21, .82] at equal "
    "pairs, .55 and .19 without holding them fixed; the accuracy of the teacher gives .64 and .57 at equal pairs",
    thresholds={"error": 0.3, "accuracy lost": 0.0},
)


def main(path: Path) -> None:
    """Do the runs that are not there."""
    finish_runs(path, names(), one_run, conclusion)


def names() -> Iterator[dict[str, Any]]:
    """What names each run."""
    settings = product(range(TEACHERS), PAIRS, WEIGHTS)
    for seed, (_, kv, weight) in enumerate(settings, start=FIRST_SEED):
        yield {"kv": kv, "weight": weight, "seed": seed}


def one_run(kv: int, weight: float, seed: int) -> dict[str, Any]:
    """A teacher and its student."""
    start = time.process_time()
    model = {"mixer": "gla", "key_size": 16, "width": 32, "decay_bias": 0.0}
    training = {"steps": 600, "batch_size": 32, "identity_weight": weight, "seed": seed}
    task = MQAR(pairs=kv, length=64, vocabulary_size=64)
    run = small_run(task, model, training, distillation=Distillation(key_sizes=(4,)))
    (student,) = students_of(carry_out(run))
    return {
        "ess": student.ess,
        "initial_ess": mean(student.initial_ess),
        "error": student.error,
        "teacher_accuracy": student.teacher_accuracy,
        "accuracy": student.accuracy,
        "seconds": round(time.process_time() - start, 1),
    }


def conclusion(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The verdict; what is left given the teacher's accuracy; and other correlations."""
    kv = np.array([row["kv"] for row in rows])
    columns = ("ess", "initial_ess", "error", "teacher_accuracy", "accuracy")
    ess, initial, error, of_teacher, accuracy = (
        ranks_within(numbers(row[name] for row in rows), kv) for name in columns
    )
    lost = ranks_within(numbers(row["teacher_accuracy"] - row["accuracy"] for row in rows), kv)
    pooled = [ranks(np.array([row[name] for row in rows])) for name in ("ess", "error")]
    return judged(
        CLAIM,
        {
            "error": correlation(ess, error),
            "accuracy lost": correlation(ess, lost),
            "error, given the teacher's accuracy": correlation(ess, error, of_teacher),
            "accuracy lost, given the teacher's accuracy": correlation(ess, lost, of_teacher),
            "the student's accuracy": correlation(ess, accuracy),
            "teacher's accuracy and error": correlation(of_teacher, error),
            "teacher's accuracy and accuracy lost": correlation(of_teacher, lost),
            "ESS at initialisation and error": correlation(initial, error),
            "error, over all pairs": correlation(*pooled),
        },
    )


def correlation(x: Numbers, y: Numbers, given: Numbers | None = None) -> Evidence:
    """Correlation of ranks over teachers, or what is left of it given a third."""
    return correlation_evidence(x, y, np.arange(len(x)), given)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
