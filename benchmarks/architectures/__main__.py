"""Architectures of one size on one text: `python -m benchmarks.architectures FOLDER --output FILE`.

FOLDER keeps every model once it is trained and once it is measured, so that a command that is stopped goes on.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
import transformers

from benchmarks import prose
from benchmarks.architectures.measuring import losses, measured, nats_by_document
from benchmarks.architectures.shapes import ARCHITECTURES
from benchmarks.architectures.training import LENGTH, RECORD, TRAINING, load, train_missing
from benchmarks.architectures.windows import held_out_windows
from benchmarks.cases import made
from statesize.io.files import replace_file
from statesize.io.machine import machine
from statesize.lab.tasks.corpus import python_prose
from statesize.lab.tasks.text import TextTask

MEASURED = "measured.json"


def main(folder: Path, output: Path) -> None:
    """Trains and measures what is missing."""
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    corpus, given = python_prose(), held_out_windows(LENGTH)
    task = TextTask.from_corpus(corpus, prose.tokenizer(), LENGTH)
    rows: list[dict[str, Any]] = []
    nats: list[list[float]] = []
    for architecture in ARCHITECTURES:
        print(architecture.name, flush=True)
        place = folder / architecture.folder
        train_missing(architecture, task, place)
        if not (place / MEASURED).exists():
            model = load(place)
            found: dict[str, Any] = {"nats": nats_by_document(model, given).tolist()} | measured(model)
            replace_file(place / MEASURED, json.dumps(found, indent=1).encode())
        record, found = (json.loads((place / name).read_text(encoding="utf-8")) for name in (RECORD, MEASURED))
        nats.append(found.pop("nats"))
        named = {"name": architecture.name, "source": architecture.source}
        rows.append(named | record | losses(nats[-1], nats[0], given) | found)
    document = {
        "made": made("transformers"),
        "training": TRAINING.to_dict() | {"length": LENGTH},
        "corpus": corpus.sha256,
        "held_out_documents": len(given.sizes),
        "machine": machine(),
        "architectures": rows,
    }
    replace_file(output, (json.dumps(document, indent=1) + "\n").encode())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--output", type=Path, required=True)
    asked = parser.parse_args()
    asked.folder.mkdir(parents=True, exist_ok=True)
    main(asked.folder, asked.output)
