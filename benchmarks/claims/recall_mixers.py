"""Do mixers that dip deeper at delimiters recall better? `python -m benchmarks.claims.recall_mixers FILE.json`.

Models of twelve mixers learn to re-bind keys, as the bundled recall models did, from five fresh seeds each. On held-out
documents ESS is measured at the delimiters, and the nats that answers to repeated bigrams cost, as `statesize study
recall` does. About 20 minutes of one core. The claim is that of the study, fixed before these runs; a run that is done
is not done again.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.cases import document
from benchmarks.claims.delimiter_positions import held_out
from benchmarks.claims.judged import judged
from benchmarks.recall_models import TASK, recall_config, train_recall_model
from benchmarks.recorded import finish
from statesize.lab.studies.engine.final import numbered
from statesize.lab.studies.recall import FIRST, RECALLED, recall_score
from statesize.lab.studies.statistics import correlation_evidence as of
from statesize.lab.studies.statistics import of_mean, ranked, ranks, within_cells
from statesize.lab.studies.texts.dips import ModelDips, measure_dips
from statesize.lab.studies.texts.sequences import OBSERVED, choose_windows
from statesize.lab.studies.verdicts import Claim
from statesize.lab.training.step import evaluate

MIXERS = (
    *("sa", "la", "wla", "gla", "gla-s6", "nla", "sliding", "linear-transformer"),
    *("hedgehog", "deltanet", "gated-deltanet", "mamba2"),
)
SEEDS, CHANNELS = range(500, 505), 16
CLAIM = Claim(
    statement="Mixers whose models dip deeper at delimiters predict repeated bigrams better: over all models, ln p of "
    "repeated bigrams goes with the depth of the dip (Pearson above 0).",
    unit="mixer",
    least_units=8,
    pilot="twenty recall models of four mixers, five seeds each, with other seeds: .48, inside mixers .11, and without "
    "`gla` .21",
    thresholds={"depth_recall": 0.0},
)


def main(path: Path) -> None:
    """Do the runs that are not there, and write the document after each."""
    names = ({"mixer": mixer, "seed": seed} for seed in SEEDS for mixer in MIXERS)
    finish(
        path,
        ((name, partial(one_run, **name)) for name in names),
        lambda rows: document(rows, **conclusion(rows)),
        partial(print, flush=True),
    )


def one_run(mixer: str, seed: int) -> dict[str, Any]:
    """A model of a seed, trained, measured at delimiters, and scored on the answers."""
    start = time.process_time()
    model, _ = train_recall_model(recall_config(mixer), seed)
    windows = choose_windows(held_out())
    measured = measure_dips(model, held_out(), windows, channels=CHANNELS, seed=seed, conditions=(OBSERVED,))
    dips = ModelDips(mixer, tuple(measured))
    answers = frozenset(range(TASK.keys, TASK.none + 1))
    score = recall_score(model, held_out(), TASK.length, answers)
    return {
        "accuracy": float(evaluate(model, TASK, 64)["accuracy"]),
        "depth": dips.dip(OBSERVED).depth,
        "depth_entropy": dips.dip(OBSERVED, "entropy").depth,
        "depth_norm": dips.dip(OBSERVED, "norm").depth,
        "ess": dips.dip(OBSERVED, "entropy").reference,
        "log_p": -float(score.mean_nats(RECALLED)[0]),
        "log_p_first": -float(score.mean_nats(FIRST)[0]),
        "seconds": round(time.process_time() - start, 1),
    }


def conclusion(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The verdict on the claim, and other correlations with ln p of repeated bigrams."""
    mixers, columns = numbered([row["mixer"] for row in rows]), ("depth", "ess", "log_p")
    depth, ess, recalled = (np.array([row[name] for row in rows]) for name in columns)
    inside = [within_cells(ranks(values), mixers) for values in (depth, recalled)]
    others = np.array([row["mixer"] != "gla" for row in rows])

    evidence = {
        "depth_recall": of(depth, recalled, mixers),
        "depth_recall_by_ranks": of(depth, recalled, mixers, prepare=ranked),
        "depth_recall_inside_mixers": of(inside[0], inside[1], mixers),
        "depth_recall_without_gla": of(depth[others], recalled[others], mixers[others]),
        "ess_recall": of(ess, recalled, mixers),
        **{
            f"depth_{mixer}": of_mean(np.array([row["depth"] for row in rows if row["mixer"] == mixer]))
            for mixer in dict.fromkeys(row["mixer"] for row in rows)
        },
    }
    return judged(CLAIM, evidence)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
