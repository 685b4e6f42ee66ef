"""Whether the probe of recall sees what a cut does to models that live on recall."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from benchmarks.compression.training import MIXERS, RECALL_SEEDS
from benchmarks.recall_models import TASK, recall_tokenizer
from statesize.lab import zoo
from statesize.lab.mixers.checkpoint import load_checkpoint
from statesize.lab.training.step import evaluate
from statesize.reduction.compress import compress

# Sequences of the task, whose documents are the text for the cut.
_SEQUENCES = 96
_BATCH = 64
_STATES = ("50%", "25%")


def recall_cuts(folder: Path) -> list[dict[str, Any]]:
    """Half and a quarter of the state of every recall model: nats lost per answer, and what `compress` says."""
    rows: list[dict[str, Any]] = []
    for seed in range(RECALL_SEEDS):
        for mixer in MIXERS:
            if seed and not (folder / f"recall-{mixer}-{seed}").exists():
                continue
            model = load_checkpoint(folder / f"recall-{mixer}-{seed}") if seed else zoo.load(f"recall-{mixer}")[0]
            before = evaluate(model, TASK, _BATCH)["loss"]
            for state in _STATES:
                found = compress(model, documents(_SEQUENCES), state, length=TASK.length, tokenizer=recall_tokenizer())
                lost = evaluate(found.model, TASK, _BATCH)["loss"] - before
                row = {"model": f"{mixer}-{seed}", "state": state, "lost_nats": lost, "safe": found.safe}
                rows.append(row | {"recall": found.to_dict()["recall"]["repeated_bigrams"]})
                print(row, flush=True)
    return rows


def documents(sequences: int) -> list[str]:
    """Documents of the task as its words."""
    inputs, _ = TASK.sample(sequences, torch.Generator().manual_seed(5))
    rows = inputs.view(-1, TASK.document_length)[:, :-1]
    return [" ".join(TASK.words[int(token)] for token in row) for row in rows]
