"""ESS while a text model of each mixer learns: `python -m benchmarks.text_series RUNS FILE`.

Each model of the default size learns Python's prose by `statesize train text`, into a folder of RUNS, and all its
checkpoints read the same four texts of it. Runs that are there are resumed.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch

import statesize as ss
from benchmarks import prose
from benchmarks.cases import document
from statesize.cli import main as statesize
from statesize.io.files import replace_file
from statesize.lab.mixers import MIXERS
from statesize.models.load import load_tokenizer

STEPS, KEPT, EVALUATED = 600, 60, 120
# All heads of attention, and so many channels of a state-space model.
CHANNELS = 16


def main(runs: Path, output: Path) -> int:
    """Train and measure one mixer after the other, and write the document after each."""
    torch.set_num_threads(1)
    rows: list[dict[str, Any]] = []
    for mixer in MIXERS:
        folder = runs / mixer
        command = ["train", "text", "--mixer", mixer, "--steps", str(STEPS), "--keep-every", str(KEPT)]
        command += ["--evaluate-every", str(EVALUATED), "--compiled", "--threads", "1", "--output", str(folder)]
        if code := statesize([*command, *(["--resume"] if folder.exists() else [])]):
            return code
        rows.append(row(mixer, folder))
        print(rows[-1], flush=True)
        replace_file(output, (json.dumps(document(rows)) + "\n").encode())
    return 0


def row(mixer: str, folder: Path) -> dict[str, Any]:
    """What a run ended with, and the ESS of its checkpoints."""
    ended = json.loads((folder / "log.jsonl").read_text("utf-8").splitlines()[-1])
    texts = prose.held_out_sequences(load_tokenizer(str(folder)))
    found = ss.lab.series(folder, texts, settings=ss.Settings(channels=CHANNELS), on_progress=lambda *_: None).to_dict()
    average, *layers = found["layers"]
    largest = max(layers, key=lambda layer: abs(layer["largest_change"]["difference"]))
    return {
        "mixer": mixer,
        "bits_per_byte": round(ended["held_out"]["bits_per_byte"], 3),
        "steps": [one["step"] for one in found["checkpoints"]],
        "texts": len(found["tokens"]),
        "entropy": [round(value, 2) for value in average["entropy"]],
        "change": average["change"],
        "largest": {"layer": largest["name"], **largest["largest_change"]},
    }


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
