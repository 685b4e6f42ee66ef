"""Does ESS tell which heads matter? `python -m benchmarks.published.heads FILE.json MODEL [...]`.

The record is results/findings/published_heads.json. MODEL is a GGUF file or a folder of a decoder of transformers with
softmax attention; a model that is in the file is not run again. In each document of 192 tokens and for each head at a
time, H_i at the cut i = 96 becomes zero. All later layers are computed from it, and the predictions of the next 32
tokens are compared with the whole model's.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.cases import document
from benchmarks.claims.judged import judged
from benchmarks.published.attention import Layer, Noting
from benchmarks.recorded import finish, of_each, prose, short, weights_of
from statesize.lab.studies.statistics import Evidence, Numbers, jackknife, ranks, spearman, within_cells
from statesize.lab.studies.verdicts import Claim
from statesize.models.load import load_model
from statesize.texts.inputs import begun_excerpts, tokens_sha256
from statesize.texts.tokens import AnyTokenizer
from statesize.truncation.blocks import PastBlock

TOKENS, CUT, COUNT = 192, 96, 32
DOCUMENTS = range(6, 22)
"""Pieces of Python's prose; the pilot read 0 and 1, a first run 2 to 5."""
MEASURES = (
    "ess",
    "joint_ess",
    "weighted_ess",
    "ess_without_sink",
    "norm",
    "weighted_norm",
    "attention_entropy",
    "sink_share",
    "layer",
)

CLAIM = Claim(
    statement="In each model, setting the past of one head to zero changes the predictions after the cut more, the "
    "larger the head's ESS is: by ranks over all heads, and over the heads of one layer.",
    unit="layer",
    least_units=15,
    pilot="pieces 0 and 1 in Gemma 3 (.40 [.06, .66], within layers .59) and 0 in SmolLM2 (.36 [.18, .53], .41). A cut "
    "to ESS / 4 was tried as well (−.17 and −.01): two pieces agree on it less (.53 against .74), as it leaves more to "
    "heads of larger ESS",
    thresholds={f"{model} {look}": 0.0 for model in ("SmolLM2", "gemma") for look in ("ess", "ess within layers")},
)


def main(path: Path, models: list[str], numbers: Sequence[int] = DOCUMENTS) -> None:
    """Run the models that are not there, and write the document after each."""
    wanted = of_each(models, lambda model: one_model(model, numbers))
    finish(path, wanted, lambda rows: document(rows, "transformers", **conclusion(rows)))


def one_model(name: str, numbers: Sequence[int]) -> dict[str, Any]:
    """What each head of a model is worth and what is measured of it, means over documents."""
    loaded, start = load_model(name), time.process_time()
    texts = pieces(loaded.tokenizer, numbers)  # pyright: ignore[reportArgumentType]
    noting = Noting(loaded.model)
    measured = [one_document(noting, text, f"document {number}") for number, text in zip(numbers, texts, strict=True)]
    return {
        **weights_of(loaded),
        "texts": tokens_sha256(texts),
        "documents": list(numbers),
        "heads": len(measured[0][0]["ess"]),
        "difference": noting.difference,
        "seconds": round(time.process_time() - start, 1),
        "measured": [
            {name: [float(f"{value:.4g}") for value in part[name]] for name in part}
            for part in (_mean_of([one for one, _ in measured]), *(cost for _, cost in measured))
        ],
    }


def pieces(tokenizer: AnyTokenizer, numbers: Sequence[int]) -> list[Tensor]:
    """Pieces of Python's prose by their numbers, (TOKENS,) each, with the token with which texts begin."""
    ids = prose(tokenizer)
    found = begun_excerpts([ids], TOKENS, len(ids), tokenizer)
    return [found[number] for number in numbers]


def one_document(noting: Noting, ids: Tensor, name: str) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """What is measured of each head, and the divergence and the loss that it costs to lose its past."""
    layers, answers = noting.layers(ids[None], compare=True), ids[CUT + 1 : CUT + COUNT + 1]
    last = layers[-1]
    whole = noting.rest(layers, len(layers) - 1, CUT, COUNT, last.values.new_zeros(1, COUNT, last.values.shape[-1]))
    measures: dict[str, list[float]] = {name: [] for name in MEASURES}
    costs: dict[str, list[float]] = {"kl": [], "loss": []}
    for index, layer in enumerate(layers):
        for measure, values in measures_of(layer, index).items():
            measures[measure] += values.tolist()
        mixed = past_values(layer)
        lost = layer.weights[0, :, CUT : CUT + COUNT, :CUT] @ mixed
        found = noting.rest(layers, index, CUT, COUNT, lost)
        costs["kl"] += (whole.exp() * (whole - found)).sum(-1).mean(-1).tolist()
        costs["loss"] += (whole - found).gather(-1, answers.expand(len(found), 1, -1).mT).mean((1, 2)).tolist()
    print(name, flush=True)
    return measures, costs


def past_values(layer: Layer) -> Tensor:
    """The values before the cut as each head reads them, (heads, i, d)."""
    values = layer.values[0, :, :CUT]
    return values.repeat_interleave(layer.weights.shape[1] // len(values), 0)


def measures_of(layer: Layer, index: int) -> dict[str, Tensor]:
    """Everything that might tell which heads matter, (heads,) each."""
    weights, groups = layer.weights[0, :, CUT:].double(), layer.values.shape[1]
    H = weights[..., :CUT]
    block, weighted = (PastBlock(matrix) for matrix in (H, H * past_values(layer).double().norm(dim=-1)[:, None]))
    sink = torch.arange(CUT) == weights.mean(1).argmax(-1, keepdim=True)
    joint = PastBlock(H.reshape(groups, -1, H.shape[-1])).entropy
    return {
        "ess": block.entropy,
        "joint_ess": joint.repeat_interleave(len(H) // groups),
        "weighted_ess": weighted.entropy,
        "ess_without_sink": PastBlock(H.masked_fill(sink[:, None], 0)).entropy,
        "norm": block.norm,
        "weighted_norm": weighted.norm,
        "attention_entropy": torch.special.entr(weights).sum(-1).mean(-1),
        "sink_share": weights.mean(1).amax(-1),
        "layer": torch.full((len(H),), float(index)),
    }


def _mean_of(measured: Sequence[Mapping[str, Sequence[float]]]) -> dict[str, list[float]]:
    return {name: np.mean([one[name] for one in measured], 0).tolist() for name in measured[0]}


def conclusion(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The verdict on the claim over all models, and every other rank correlation."""
    return judged(CLAIM, {f"{short(row)} {name}": one for row in rows for name, one in evidence_of(row).items()})


def evidence_of(row: Mapping[str, Any]) -> dict[str, Evidence]:
    """Rank correlations over heads of what losing the past costs with all measures, leaving out a layer at a time."""
    measures, *costs = ({name: np.array(values) for name, values in part.items()} for part in row["measured"])
    layers, divergence = measures["layer"].astype(np.int64), np.mean([cost["kl"] for cost in costs], 0)

    def of(x: Numbers, y: Numbers) -> Evidence:
        return jackknife(lambda heads: spearman(x[heads], y[heads]), layers, correlation=True)

    def ahead(name: str) -> Evidence:
        ess, other = measures["ess"], measures[name]
        return jackknife(
            lambda heads: spearman(ess[heads], divergence[heads]) - spearman(other[heads], divergence[heads]), layers
        )

    inside = {name: within_cells(ranks(values), layers) for name, values in measures.items()}
    found = {name: of(measures[name], divergence) for name in MEASURES}
    found |= {f"ess above {name}": ahead(name) for name in MEASURES if name != "ess"}
    found["ess within layers"] = of(inside["ess"], within_cells(ranks(divergence), layers))
    found["norm within layers"] = of(inside["norm"], within_cells(ranks(divergence), layers))
    found["ess, of the loss"] = of(measures["ess"], np.mean([cost["loss"] for cost in costs], 0))
    halves = [np.mean([cost["kl"] for cost in costs[half::2]], 0) for half in range(2)]
    return found | {"one half of the documents with the other": of(*halves)}


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
