"""Does ESS rise before a model solves recall? `python -m benchmarks.claims.recall_moment FILE`.

Small models learn multi-query associative recall, each mixer with each seed, and `statesize series` measures all that
they keep, at the border between the pairs and the queries. In all of them entropy-ESS falls at first and then rises to
its last value. The *moment of rise* is where it has made half of that rise, the *moment of solving* is where held-out
accuracy has made half of its rise. The claim was fixed before these runs; a run that is done is not done again.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.cases import document
from benchmarks.claims.judged import judged
from benchmarks.recorded import finish
from statesize.lab.mixers import LanguageModel, ModelConfig
from statesize.lab.studies.statistics import of_mean
from statesize.lab.studies.verdicts import Claim
from statesize.lab.tasks import MQAR
from statesize.lab.training import TrainingConfig, train
from statesize.lab.trends.series import series
from statesize.measurement.settings import Settings

MIXERS, SEEDS = ("gla", "la", "sa"), range(100, 110)
PAIRS, EVERY = 6, 10
TASK = MQAR(pairs=PAIRS, length=32, vocabulary_size=64, held_out_sequences=64)
SHAPE = {"width": 32, "heads": 2, "layers": 2, "key_size": 8, "mlp_factor": 2, "convolution_size": 2, "decay_bias": 0.0}
CLAIM = Claim(
    statement="Entropy-ESS at the border between pairs and queries makes half of its rise before held-out accuracy "
    "does (lead, in steps of training, above 0), in each of gla, la and sa.",
    unit="seed",
    least_units=8,
    pilot="seeds 0–2 of gla and seed 2 of la and sa, measured every 25 steps",
    thresholds={f"lead_{mixer}": 0.0 for mixer in MIXERS},
)
METRICS = ("entropy", "relative_count", "norm")


def main(path: Path) -> None:
    """Do the runs that are not there, and write the document after each."""
    names = ({"mixer": mixer, "seed": seed} for seed in SEEDS for mixer in MIXERS)
    finish(
        path,
        ((name, partial(one_run, **name)) for name in names),
        lambda rows: document(rows, **conclusion(rows)),
        lambda row: print(row["mixer"], row["seed"], {one: round(lead(row, one), 1) for one in METRICS}, flush=True),
    )


def one_run(mixer: str, seed: int) -> dict[str, Any]:
    """A model of a seed, trained and measured: accuracy and ESS, averaged over layers and texts, every EVERY steps."""
    shape = ModelConfig(mixer=mixer, vocabulary_size=TASK.vocabulary_size, tied=False, **SHAPE)
    model = LanguageModel(shape, torch.Generator().manual_seed(seed))
    config = TrainingConfig(
        steps=600, batch_size=32, weight_decay=0.0, seed=seed, evaluate_every=EVERY, checkpoint_every=600
    )
    texts = TASK.sample(8, torch.Generator().manual_seed(10**6 + seed))[0]
    with tempfile.TemporaryDirectory() as folder:
        train(model, TASK, config, folder, keep_every=EVERY)
        found = series(folder, texts, settings=Settings(positions=[2 * PAIRS]), on_progress=lambda *_: None)
    accuracy = dict(found.log["held out accuracy"])
    means = {metric: [round(value, 5) for value in found.means(metric=metric).tolist()] for metric in METRICS}
    # Before the first step a model guesses.
    steps = list(found.places or ())
    told = [round(accuracy.get(step, 1 / TASK.keys), 5) for step in steps]
    return {"steps": steps, "accuracy": told, **means}


def moment(steps: Sequence[int], values: Sequence[float], start: int = 0) -> float:
    """The step, between the measured ones, at which half of the way from values[start] to the last is made."""
    curve: NDArray[np.float64] = np.array(values[start:])
    share = (curve - curve[0]) / (curve[-1] - curve[0])
    after = int((share >= 0.5).argmax())
    before = after - 1
    part = (0.5 - share[before]) / (share[after] - share[before])
    return float(steps[start + before] + part * (steps[start + after] - steps[start + before]))


def lead(row: Mapping[str, Any], metric: str = "entropy") -> float:
    """Steps by which ESS rises before accuracy does; NaN where it ends lower than a tenth above its lowest value."""
    values = row[metric]
    lowest = int(np.argmin(values))
    if values[-1] < 1.1 * values[lowest]:
        return float("nan")
    return moment(row["steps"], row["accuracy"]) - moment(row["steps"], values, lowest)


def conclusion(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The verdict on the claim, and the same figure for other metrics, which nothing was claimed of."""
    leads = {
        (metric, mixer): np.array([lead(row, metric) for row in rows if row["mixer"] == mixer], np.float64)
        for metric in METRICS
        for mixer in MIXERS
    }
    evidence = {key: of_mean(values[np.isfinite(values)]) for key, values in leads.items()}
    named = {
        f"lead_{mixer}" if metric == "entropy" else f"{metric}_{mixer}": one
        for (metric, mixer), one in evidence.items()
    }
    return judged(CLAIM, named)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
