"""Should heads of more ESS keep more states? `python -m benchmarks.compression.ess_sizes FILE`.

The bundled models of text, and twelve models of re-binding recall (the bundled ones, and three more seeds of each
mixer, trained here), cut to a half and a quarter of their states, of which heads keep equally many, or as many as
their entropy-ESS or their Gramian tail says. What is lost beyond equal sizes: bits per byte on held-out documents, with
intervals over these; nats per answer of recall, with intervals over models. About four minutes of one core.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from benchmarks.cases import document
from benchmarks.compression.comparing import BUNDLED, texts
from benchmarks.compression.recalling import documents
from benchmarks.compression.training import MIXERS
from benchmarks.recall_models import TASK, recall_config, recall_tokenizer, train_recall_model
from statesize import capture
from statesize.io.files import replace_file
from statesize.lab import zoo
from statesize.lab.compression.proposals import bases_of, cuts_of, equal_sizes, measure_gramians, sizes_by_cost
from statesize.lab.compression.shrinking import smaller_model
from statesize.lab.mixers.model import LanguageModel
from statesize.lab.studies.statistics import of_mean
from statesize.lab.training.step import evaluate
from statesize.measurement.measurement import measure
from statesize.reduction.compress import extra_bits
from statesize.reduction.windows import BATCH, score, windows

SHARES, FRESH = (0.5, 0.25), (400, 401, 402)
WAYS = ("entropy-ESS", "Gramian tail")
_LENGTH, _SEQUENCES, _DOCUMENTS = 256, 8, 96


def main(path: Path) -> None:
    """Cut all models, print what is lost, and write the document."""
    torch.set_num_threads(1)
    rows: list[dict[str, Any]] = []
    for name in BUNDLED:
        rows += of_text(name)
    for mixer in MIXERS:
        for seed in (0, *FRESH):
            rows += of_recall(mixer, seed)
    replace_file(path, (json.dumps(document(rows, recall=over_models(rows)), indent=1) + "\n").encode())


def of_text(name: str) -> list[dict[str, Any]]:
    """A bundled model of text: extra bits per byte, and those beyond equal sizes."""
    model, tokenizer = zoo.load(name)
    calibration, _, held_out = (windows(text, tokenizer, _LENGTH) for text in texts())
    before = score(model, held_out.inputs, held_out.targets)
    rows: list[dict[str, Any]] = []
    for share, cuts in cut(model, calibration.inputs):
        scores = {way: score(one, held_out.inputs, held_out.targets) for way, one in cuts.items()}
        for way in WAYS:
            found = extra_bits(scores[way], scores["equal"], held_out)
            extra = extra_bits(scores["equal"], before, held_out).value
            rows.append({"model": name, "text": True, "share": share, "way": way, "equal": extra, "lost": told(found)})
            print(rows[-1], flush=True)
    return rows


def of_recall(mixer: str, seed: int) -> list[dict[str, Any]]:
    """A model of recall: nats per answer."""
    model = zoo.load(f"recall-{mixer}")[0] if seed == 0 else train_recall_model(recall_config(mixer), seed)[0]
    calibration = windows(documents(_DOCUMENTS), recall_tokenizer(), TASK.length)
    before = nats(model)
    rows: list[dict[str, Any]] = []
    for share, cuts in cut(model, calibration.inputs):
        lost = {way: nats(one) - before for way, one in cuts.items()}
        for way in WAYS:
            row = {"model": f"recall-{mixer}-{seed}", "text": False, "share": share, "way": way}
            rows.append(row | {"equal": lost["equal"], "lost": [lost[way] - lost["equal"]]})
            print(rows[-1], flush=True)
    return rows


def nats(model: LanguageModel) -> float:
    """Mean loss of the answers on held-out sequences."""
    return float(evaluate(model, TASK, 64)["loss"])


@torch.no_grad()
def cut(model: LanguageModel, inputs: Tensor) -> list[tuple[float, dict[str, LanguageModel]]]:
    """The model cut to each share, by how sizes are chosen; all cuts of a head are of one basis."""
    bases = bases_of(model, measure_gramians(model, torch.split(inputs, BATCH)))
    tails = [basis.error.numpy() for own in bases.values() for basis in own]
    ess, n = head_ess(model, inputs[:_SEQUENCES]), model.config.key_size
    choose: Mapping[str, Callable[[int], Sequence[int]]] = {
        "equal": lambda total: equal_sizes(len(ess), total, n),
        "entropy-ESS": lambda total: in_proportion(ess, total, n),
        "Gramian tail": lambda total: sizes_by_cost(tails, total),
    }
    totals = {share: round(share * n) * len(ess) for share in SHARES}
    return [
        (share, {way: smaller_model(model, cuts_of(bases, sizes(total))) for way, sizes in choose.items()})
        for share, total in totals.items()
    ]


def head_ess(model: LanguageModel, inputs: Tensor) -> list[float]:
    """Entropy-ESS of each head in the middle of the inputs."""
    middle = inputs.shape[1] // 2
    found = (measure(captured.operator, positions=[middle]).entropy for captured in capture(model, inputs))
    return [value for entropy in found for value in cast("Tensor", entropy).mean((0, 2)).tolist()]


def in_proportion(numbers: Sequence[float], total: int, most: int) -> list[int]:
    """Whole sizes in proportion to numbers, each from 1 to `most` (the method of D'Hondt)."""
    sizes = [1] * len(numbers)
    for _ in range(total - len(numbers)):
        open_heads = [head for head, size in enumerate(sizes) if size < most]
        sizes[max(open_heads, key=lambda head: numbers[head] / (sizes[head] + 1))] += 1
    return sizes


def over_models(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What models of recall lose beyond equal sizes: mean over models, and in how many it is less."""
    found: list[dict[str, Any]] = []
    for share in SHARES:
        for way in WAYS:
            own = [row for row in rows if not row["text"] and (row["share"], row["way"]) == (share, way)]
            beyond = np.array([row["lost"][0] for row in own])
            equal = float(np.mean([row["equal"] for row in own]))
            row = {"share": share, "way": way, "models": len(own), "less": int((beyond < 0).sum()), "equal": equal}
            found.append(row | {"lost": told(of_mean(beyond).interval())})
            print(found[-1], flush=True)
    return found


def told(found: Any) -> list[float]:
    """An interval as numbers."""
    return [found.value, found.low, found.high]


if __name__ == "__main__":
    main(Path(sys.argv[1]))
