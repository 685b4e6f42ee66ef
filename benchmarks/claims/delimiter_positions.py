"""Do positions make attention forget? `python -m benchmarks.claims.delimiter_positions FILE`.

Models of four mixers learn to re-bind keys, as the bundled recall models did, each with and without learned positions,
from eight seeds; then ESS is measured around the delimiters of held-out documents and in the controls, as `statesize
study delimiters` does. About 20 minutes of one core. The claim was fixed before these runs; a run that is done is not
done again.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.cases import document
from benchmarks.claims.judged import judged
from benchmarks.recall_models import MIXERS, TASK, recall_config, recall_tokenizer, train_recall_model
from benchmarks.recorded import finish
from statesize.lab.studies.statistics import of_mean
from statesize.lab.studies.texts.dips import ModelDips, measure_dips
from statesize.lab.studies.texts.documents import DocumentCorpus, default_texts, make_corpus
from statesize.lab.studies.texts.responses import METRICS
from statesize.lab.studies.texts.sequences import CONTROLS, OBSERVED, choose_windows
from statesize.lab.studies.verdicts import Claim
from statesize.lab.training.step import evaluate

SEEDS, DOCUMENTS = range(300, 308), 100
CLAIM = Claim(
    statement="With learned positions, softmax attention that learnt to re-bind keys dips at delimiters by more than "
    "in every control (mean over seeds), and exceeds its controls by more than its siblings of equal seeds without "
    "positions do.",
    unit="seed",
    least_units=8,
    pilot="four seeds of each mixer at another length, where softmax attention had positions and dipped most (by .52), "
    "and five seeds of the bundled models' kind, where it had none and did not dip",
    thresholds={"sa_with_positions": 0.0, "sa_gained_by_positions": 0.0},
)


def main(path: Path) -> None:
    """Do the runs that are not there, and write the document after each."""
    names = (
        {"mixer": mixer, "positions": positions, "seed": seed}
        for seed in SEEDS
        for mixer in MIXERS
        for positions in (False, True)
    )
    finish(
        path,
        ((name, partial(one_run, **name)) for name in names),
        lambda rows: document(rows, **conclusion(rows)),
        lambda row: print({key: row[key] for key in ("mixer", "positions", "seed", "accuracy", "beyond")}, flush=True),
    )


@cache
def held_out() -> DocumentCorpus:
    """The documents on which the bundled recall models are measured."""
    return make_corpus(default_texts("recall-sa"), recall_tokenizer(), "eos").shortened(DOCUMENTS)


def one_run(mixer: str, positions: bool, seed: int) -> dict[str, Any]:
    """A model of a seed, trained and measured around delimiters."""
    config = dataclasses.replace(recall_config(mixer), positions=TASK.length if positions else 0)
    model, _ = train_recall_model(config, seed)
    accuracy = float(evaluate(model, TASK, 64)["accuracy"])
    windows = choose_windows(held_out())
    dips = ModelDips(mixer, tuple(measure_dips(model, held_out(), windows, seed=seed)))
    return {
        **{"accuracy": accuracy, "beyond": dips.beyond},
        "depths": {metric: dips.dip(OBSERVED, metric).depth for metric in METRICS},
        "controls": {control: dips.dip(control).depth for control in CONTROLS},
    }


def conclusion(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The verdict on the claim, and the same for the other mixers, which nothing was claimed of."""
    beyond = {(row["mixer"], row["positions"], row["seed"]): row["beyond"] for row in rows}
    evidence = {
        f"{mixer}_{'with' if positions else 'without'}_positions": of_mean(
            np.array([value for key, value in beyond.items() if key[:2] == (mixer, positions)])
        )
        for mixer in MIXERS
        for positions in (False, True)
    } | {
        f"{mixer}_gained_by_positions": of_mean(
            np.array(
                [
                    beyond[mixer, True, seed] - beyond[mixer, False, seed]
                    for seed in SEEDS
                    if (mixer, True, seed) in beyond
                ]
            )
        )
        for mixer in MIXERS
    }
    return judged(CLAIM, evidence)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
