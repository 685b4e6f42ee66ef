"""What half the state costs: `python -m benchmarks.compression.comparing FOLDER --output FILE`.

FOLDER holds the models of `benchmarks.compression.training`. Every model is cut by `statesize.compress`'s ways and by
channel selection, on the same calibration text, and scored on the same held-out documents.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from scipy import stats
from tokenizers import Tokenizer

from benchmarks import prose
from benchmarks.cases import made
from benchmarks.compression.channels import SCORES, channel_cuts
from benchmarks.compression.heads import rank_correlations
from benchmarks.compression.recalling import recall_cuts
from benchmarks.compression.training import LENGTH, MIXERS, SEEDS, SHAPE, TRAINING
from statesize.io.files import replace_file
from statesize.lab import zoo
from statesize.lab.compression.proposals import Ranking, measure_gramians
from statesize.lab.compression.shrinking import rounded_model, smaller_model
from statesize.lab.mixers.checkpoint import load_checkpoint
from statesize.lab.mixers.model import LanguageModel
from statesize.lab.tasks.corpus import python_prose
from statesize.measurement.statistics import Interval
from statesize.reduction.compress import extra_bits
from statesize.reduction.hub import reducible
from statesize.reduction.windows import BATCH, TokenWindows, probe, ratio_of, score, windows

# A head keeps 15 of 32 numbers, whose int8 with scales is a quarter of the bytes of 32 in 16 bits.
_QUARTER = 15
_PROMPT = "Return the"
BUNDLED = ("la", "gla")
"""The bundled models whose states can be cut."""
_SAMPLED = 40


def texts() -> tuple[Sequence[str], Sequence[str], Sequence[str]]:
    """Documents for the Gramians, for the choice of sizes, and held out."""
    corpus = python_prose()
    # From all of the train part; the places are never the same.
    return corpus.train[::12], corpus.train[6::36], corpus.held_out


def compared(model: LanguageModel, parts: Sequence[TokenWindows], seed: int, tokenizer: Tokenizer) -> dict[str, Any]:
    """All cuts of one model: extra bits per byte on the held-out documents, and what the probe of recall found."""
    calibration, choice, held_out = parts
    n, heads = model.config.key_size, model.config.heads * model.config.layers
    gramians = measure_gramians(model, torch.split(calibration.inputs, BATCH))
    before = score(model, held_out.inputs, held_out.targets)

    def extra(cut: LanguageModel) -> Interval:
        return extra_bits(score(cut, held_out.inputs, held_out.targets), before, held_out)

    ranking = Ranking.of(model, calibration)
    half, method = ranking.best_cut(heads * n // 2, choice)
    smaller, _ = ranking.best_cut(heads * _QUARTER, choice)
    quarter = rounded_model(smaller)
    found = {"compress": extra(half), "int8 alone": extra(rounded_model(model)), "a quarter with int8": extra(quarter)}
    for way in SCORES:
        cuts = channel_cuts(model, way, n // 2, calibration.inputs[:BATCH], gramians, seed)
        found[way] = extra(smaller_model(model, cuts))
    recall = probe(model, half, held_out)["repeated_bigrams"]
    bits = ratio_of(before.bits(held_out), held_out.sizes, held_out.texts)
    return {
        "bits_per_byte": bits.value,
        "method": method[-1],
        "extra": {name: [ratio.value, ratio.low, ratio.high] for name, ratio in found.items()},
        "quarter_bytes": reducible(quarter).state_bytes / (reducible(model).state_bytes / 2),
        "recall_lost": [recall.lost.value, recall.lost.low, recall.lost.high],
        "recall_kept": recall.kept,
        "rank_correlations": rank_correlations(model, ranking.bases, choice),
        "samples": [tokenizer.decode(generated(one, tokenizer.encode(_PROMPT).ids)) for one in (model, half)],
    }


def summarised(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Means over the seeds of one mixer with Student's intervals, and the best channel selection beside ours."""
    names = list(rows[0]["extra"])
    costs = {name: np.array([row["extra"][name][0] for row in rows]) for name in names}
    best = min(SCORES, key=lambda name: float(costs[name].mean()))
    share = ratio_of(torch.tensor(costs["compress"]), torch.tensor(costs[best]))
    correlations = {
        name: [row["rank_correlations"][name] for row in rows]
        for name in rows[0]["rank_correlations"]
        if rows[0]["rank_correlations"][name] is not None
    }
    return {
        "seeds": len(rows),
        "extra": {name: _mean(values) for name, values in costs.items()},
        "best_channels": best,
        "share_of_best_channels": [share.value, share.low, share.high],
        "rank_correlations": {name: _mean_correlation(np.array(values)) for name, values in correlations.items()},
    }


@torch.no_grad()
def generated(model: LanguageModel, prompt: Sequence[int]) -> list[int]:
    """The prompt and the most probable tokens after it, one after another."""
    ids, caches, logits = list(prompt), model.initial_caches(1), torch.empty(0)
    for token in prompt:
        logits, caches = model.step(torch.tensor([token]), caches)
    for _ in range(_SAMPLED):
        ids.append(int(logits.argmax()))
        logits, caches = model.step(torch.tensor([ids[-1]]), caches)
    return ids


def main(folder: Path, output: Path) -> None:
    """Compares the bundled models and those of the folder; what was compared before is read."""
    torch.set_num_threads(1)
    parts = texts()
    document: dict[str, Any] = {
        "made": made("scipy"),
        "shape": SHAPE,
        "training": TRAINING | {"length": LENGTH},
        "held_out_documents": len(parts[2]),
    }

    def row(name: str, model: LanguageModel, tokenizer: Tokenizer, length: int, seed: int) -> dict[str, Any]:
        place = folder / "compared" / f"{name}.json"
        if not place.exists():
            given = [windows(text, tokenizer, length) for text in parts]
            replace_file(place, json.dumps(compared(model, given, seed, tokenizer)).encode())
        found = json.loads(place.read_text(encoding="utf-8"))
        print(name, found["extra"], flush=True)
        return found

    document["bundled"] = {name: row(name, *zoo.load(name), 256, 0) for name in BUNDLED}
    # The seeds for which every mixer is there.
    seeds = [seed for seed in range(SEEDS) if all((folder / f"{mixer}-{seed}").exists() for mixer in MIXERS)]
    named = {f"{mixer}-{seed}": seed for seed in seeds for mixer in MIXERS}
    document["models"] = {
        name: row(name, load_checkpoint(folder / name), prose.tokenizer(), LENGTH, seed) for name, seed in named.items()
    }
    rows = {mixer: [document["models"][f"{mixer}-{seed}"] for seed in seeds] for mixer in MIXERS}
    document["mixers"] = {mixer: summarised(own) for mixer, own in rows.items()}
    document["recall"] = recall_cuts(folder)
    replace_file(output, (json.dumps(document, indent=1) + "\n").encode())


def _mean(values: np.ndarray[Any, np.dtype[np.float64]]) -> list[float]:
    """Mean and Student's interval of 95 %."""
    half = float(cast("Any", stats).t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / len(values) ** 0.5)
    return [float(values.mean()), float(values.mean()) - half, float(values.mean()) + half]


def _mean_correlation(values: np.ndarray[Any, np.dtype[np.float64]]) -> list[float]:
    """The same on the scale of Fisher's z, where a correlation of 1 counts as one of 0.99."""
    return [float(number) for number in np.tanh(_mean(np.arctanh(values.clip(-0.99, 0.99))))]


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--output", type=Path, required=True)
    given = parser.parse_args()
    main(given.folder, given.output)
