"""Bundles models that `statesize lab train text` trained: weights in float16, and how they came about.

    python -m tools.model_bundle RUNS OUTPUT

RUNS holds a folder of a run for each name in `statesize.lab.zoo.names()`, OUTPUT is the zoo. The commands of the runs
stand in each training.json; corpus.jsonl is what `tools.text_bundle` writes.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from statesize.io.files import replace_file
from statesize.lab import zoo
from statesize.lab.mixers.checkpoint import load_checkpoint, save_checkpoint
from statesize.lab.mixers.model import LanguageModel
from statesize.lab.tasks import Corpus, TextTask, encode
from statesize.lab.training import evaluate
from statesize.measurement.statistics import Interval, mean_interval
from statesize.texts.bundled import DATA

WINDOW = 256
"""Tokens whose middle is the place at which the context is worth something."""
CURVE_EVERY = 20
"""Steps whose mean loss is one point of the curve."""


@torch.no_grad()
def context_worth(model: LanguageModel) -> Interval:
    """Nats per token that the second halves of windows lose without the first ones, means of the bundled documents."""
    half, found = WINDOW // 2, list[float]()
    for document in zoo.documents():
        ids = encode([document], zoo.tokenizer())
        windows = ids[: len(ids) // WINDOW * WINDOW].view(-1, WINDOW)
        whole, alone = (model(windows[:, start:-1])[:, half - start :].mT for start in (0, half))
        answers = windows[:, half + 1 :]
        found.append(float(functional.cross_entropy(alone, answers) - functional.cross_entropy(whole, answers)))
    return mean_interval(np.array(found))


def bundle(run: Path, place: Path, text: TextTask) -> dict[str, Any]:
    """Write the model of one run in float16 to `place`, with its record; returns the record."""
    save_checkpoint(load_checkpoint(run / "best"), place, dtype=torch.float16)
    # What is reported is what will be read.
    model = load_checkpoint(place)
    worth = context_worth(model)
    corpus = json.loads((DATA / "documents.json").read_text(encoding="utf-8"))["corpus_sha256"]
    made = json.loads((run / "provenance.json").read_text(encoding="utf-8"))
    steps = [json.loads(line) for line in (run / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    held_out = [{"step": step["step"], **step["held_out"]} for step in steps if step.get("held_out")]
    record = {
        **made,
        "data": {"corpus_sha256": corpus, "length": int(made["command"].partition(" --length ")[2].split()[0])},
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "dtype": "float16",
        "train_tokens": sum(step["tokens"] for step in steps),
        "seconds": round(sum(step["seconds"] for step in steps)),
        "best_step": min(held_out, key=lambda point: point["loss"])["step"],
        "bundled_documents": {
            **evaluate(model, text, 8),
            "context_worth": {"tokens": WINDOW, **worth.to_dict()},
        },
        "held_out_curve": held_out,
        "curve": [
            {"step": end, "loss": round(sum(step["loss"] for step in steps[end - CURVE_EVERY : end]) / CURVE_EVERY, 4)}
            for end in range(CURVE_EVERY, len(steps) + 1, CURVE_EVERY)
        ],
    }
    replace_file(place / "training.json", (json.dumps(record, indent=1, allow_nan=False) + "\n").encode())
    return record


def main(runs: Path, output: Path) -> None:
    """Bundle all models."""
    documents = tuple(zoo.documents())
    text = TextTask.from_corpus(Corpus(documents, documents), zoo.tokenizer(), length=WINDOW)
    for name in zoo.names():
        record = bundle(runs / name, output / name, text)
        print(name, record["held_out_curve"][-1], record["bundled_documents"])


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
