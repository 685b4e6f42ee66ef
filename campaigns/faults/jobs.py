"""The jobs that faults come to: what they read, the files that they make once, and the results that they end with."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import safetensors.numpy
import torch

from statesize.errors import FileError
from statesize.lab.mixers import LanguageModel, ModelConfig
from statesize.lab.mixers.checkpoint import save_checkpoint
from statesize.lab.tasks.text import train_tokenizer
from statesize.profiling import Profile

WORDS = "to be or not to be that is the question whether it is nobler in the mind to suffer".split()
TEXTS = [" ".join(WORDS[first : first + 3]) for first in range(4)]
GRID = """
from statesize.lab.studies import study
from statesize.lab.studies.engine.grid import Grid, RunMeasurements
from statesize.lab.studies.regimes import Regimes


@study("faults")
class Faults(Regimes):
    presets = {
        "smoke": Grid(
            tasks=[{"name": "mqar", "pairs": 2, "length": 8, "vocabulary_size": 8, "held_out_sequences": 4}],
            model={
                **{"mixer": "gla", "key_size": [2, 3], "width": 4, "heads": 1, "layers": 1},
                **{"mlp_factor": 1, "convolution_size": 2},
            },
            training={"steps": 6, "batch_size": 2, "rate": [6e-3, 1.2e-2, 2.4e-2]},
            measuring=RunMeasurements(every=4, sequences=1),
        )
    }
"""


@dataclass(frozen=True)
class Job:
    """A command that writes to the folder "output"; its inputs lie in "inputs" beside it.

    Attributes:
        name: Of the job.
        write_inputs: Writes what the command reads into a new folder.
        arguments: The command line that begins or continues the job, as its messages tell its user.
        part: The end of the names of the files that are made once, however often the job is continued.
        table: All results without times, given the output; a FileError where they are not whole.
    """

    name: str
    write_inputs: Callable[[Path], object]
    arguments: Callable[[Path], list[str]]
    part: str
    table: Callable[[Path], str]


def _model_and_texts(folder: Path) -> None:
    shape = ModelConfig(mixer="gla", vocabulary_size=257, width=8, heads=2, layers=2, key_size=3)
    save_checkpoint(LanguageModel(shape, torch.Generator().manual_seed(0)), folder / "model")
    (folder / "model" / "tokenizer.json").write_text(train_tokenizer(["a b"], 257).to_str(), encoding="utf-8")
    lines = [json.dumps({"text": text}) for text in TEXTS]
    (folder / "texts.jsonl").write_text("\n".join(lines), encoding="utf-8")


def _profile(folder: Path) -> list[str]:
    model, text = (str(folder / "inputs" / name) for name in ("model", "texts.jsonl"))
    return ["profile", model, "--text", text, "--max-tokens", "8", "--output", str(folder / "output")]


def _profile_table(output: Path) -> str:
    tree = Profile.load(output).tree
    # Times, and where inputs and output lie.
    for name in ("seconds", "source"):
        tree.attrs.pop(name, None)
    digest = hashlib.sha256()
    for node in sorted(tree.subtree, key=lambda node: node.path):
        dataset = node.to_dataset(inherit=False)
        digest.update(repr((node.path, sorted(dataset.attrs.items()))).encode())
        for name in sorted(map(str, dataset.variables)):
            digest.update(name.encode() + repr(dataset[name].values.tolist()).encode())
    return digest.hexdigest()


def _grid(folder: Path) -> None:
    folder.mkdir()
    (folder / "mine.py").write_text(GRID, encoding="utf-8")


def _study(folder: Path) -> list[str]:
    plugin, output = str(folder / "inputs" / "mine.py"), str(folder / "output")
    return ["lab", "study", "faults", "--plugin", plugin, "--output", output]


def _study_table(output: Path) -> str:
    rows = pd.read_parquet(output / "table.parquet").drop(columns="seconds")
    if not (output / "study.html").is_file():
        raise FileError("study.html is missing")
    return rows.to_json(double_precision=15)


def _text(folder: Path) -> None:
    folder.mkdir()
    documents = [" ".join(WORDS[first:] + WORDS[:first]) for first in range(8)]
    (folder / "text.txt").write_text("\n\n".join(documents), encoding="utf-8")


def _train(folder: Path) -> list[str]:
    output = folder / "output"
    numbers = {"steps": 10, "batch": 1, "length": 4, "evaluate-every": 4, "checkpoint-every": 3}
    options = [word for name, value in numbers.items() for word in (f"--{name}", str(value))]
    where = ["--text", str(folder / "inputs" / "text.txt"), "--output", str(output)]
    resume = ["--resume"] * (output / "state.safetensors").is_file()
    return ["lab", "train", "text", "--mixer", "gla", *where, *options, *resume, "--json"]


def _train_table(output: Path) -> str:
    parts = [json.loads(line) | {"seconds": 0} for line in (output / "log.jsonl").read_text().splitlines()]
    digest = hashlib.sha256(json.dumps(parts).encode())
    for path in (output / "state.safetensors", output / "best" / "model.safetensors"):
        tensors = safetensors.numpy.load_file(path)
        for name in sorted(tensors):
            digest.update(name.encode() + tensors[name].tobytes())
    for path in (output / "best" / "config.json", output / "tokenizer.json"):
        digest.update(path.read_bytes())
    return digest.hexdigest()


JOBS = {
    "profile": Job("profile", _model_and_texts, _profile, ".unit", _profile_table),
    "study": Job("study", _grid, _study, ".parquet", _study_table),
    "train": Job("train", _text, _train, "/state.safetensors", _train_table),
}
