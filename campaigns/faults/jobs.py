"""The jobs that faults come to: what they read, what they have finished, and the table that they end with."""

from __future__ import annotations

import hashlib
import json
import re
from abc import ABC, abstractmethod
from pathlib import Path

import pandas as pd
import safetensors
import safetensors.numpy
import tokenizers
import torch

from statesize.errors import FileError
from statesize.io.files import digest
from statesize.lab.mixers import LanguageModel, ModelConfig
from statesize.lab.mixers.checkpoint import save_checkpoint
from statesize.lab.tasks.text import train_tokenizer
from statesize.profiling import Profile

_DIGEST = re.compile(r"-[0-9a-f]{24}(?=\.(unit|parquet|safetensors)$)")
WORDS = "to be or not to be that is the question whether it is nobler in the mind to suffer".split()
TEXTS = [" ".join(WORDS[first : first + 3]) for first in range(4)]
LAYERS = 2
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


class Job(ABC):
    """A command that writes to the folder "output"; its inputs lie in "inputs" beside it."""

    name: str

    @abstractmethod
    def write_inputs(self, folder: Path) -> None:
        """Writes what the command reads."""

    @abstractmethod
    def arguments(self, folder: Path) -> list[str]:
        """The command line that begins or continues the job, as its messages tell its user."""

    @abstractmethod
    def finished(self, output: Path) -> set[str]:
        """Names of the parts that are finished and whole."""

    @abstractmethod
    def made(self, notes: list[str]) -> set[str]:
        """Names of the parts that a process made anew."""

    @abstractmethod
    def table(self, output: Path) -> str:
        """A digest of all results, without times; a FileError where they are not whole."""


class ProfileJob(Job):
    """`statesize profile` of a folder with a model, over a file of texts."""

    name = "profile"

    def write_inputs(self, folder: Path) -> None:
        """A model of two layers with its tokenizer, and four texts."""
        shape = ModelConfig(mixer="gla", vocabulary_size=257, width=8, heads=2, layers=LAYERS, key_size=3)
        model = LanguageModel(shape, torch.Generator().manual_seed(0))
        save_checkpoint(model, folder / "model")
        (folder / "model" / "tokenizer.json").write_text(_tokenizer().to_str(), encoding="utf-8")
        lines = [json.dumps({"text": text}) for text in TEXTS]
        (folder / "texts.jsonl").write_text("\n".join(lines), encoding="utf-8")

    def arguments(self, folder: Path) -> list[str]:
        """The same command each time."""
        model, text = (str(folder / "inputs" / name) for name in ("model", "texts.jsonl"))
        return ["profile", model, "--text", text, "--max-tokens", "8", "--output", str(folder / "output")]

    def finished(self, output: Path) -> set[str]:
        """Units; of a profile that is there, all."""
        if output.exists():
            return {"profile"}
        units = output.with_name("output.units").glob("0*/*.unit")
        return {part_name(path) for path in units if path.stem.endswith(f"-{digest(path.read_bytes())}")}

    def made(self, notes: list[str]) -> set[str]:
        """Units that were moved to their places."""
        found = {part_name(Path(note)) for note in notes if note.endswith(".unit")}
        return found | ({"profile"} if found else set())

    def table(self, output: Path) -> str:
        """All numbers and attributes of the profile, and the schema's of all of its mixers."""
        loaded = Profile.load(output)
        # Times, and where inputs and output lie.
        for name in ("seconds", "source"):
            loaded.tree.attrs.pop(name, None)
        digest = hashlib.sha256()
        for node in sorted(loaded.tree.subtree, key=lambda node: node.path):
            dataset = node.to_dataset(inherit=False)
            digest.update(repr((node.path, sorted(dataset.attrs.items()))).encode())
            for name in sorted(map(str, dataset.variables)):
                digest.update(name.encode() + repr(dataset[name].values.tolist()).encode())
        return digest.hexdigest()


class StudyJob(Job):
    """`statesize lab study` of a grid of six runs."""

    name = "study"

    def write_inputs(self, folder: Path) -> None:
        """The grid."""
        folder.mkdir()
        (folder / "mine.py").write_text(GRID, encoding="utf-8")

    def arguments(self, folder: Path) -> list[str]:
        """The same command each time."""
        plugin, output = str(folder / "inputs" / "mine.py"), str(folder / "output")
        return ["lab", "study", "faults", "--plugin", plugin, "--output", output]

    def finished(self, output: Path) -> set[str]:
        """Runs whose file can be read."""
        return {part_name(path) for path in (output / "runs").rglob("*.parquet") if _readable(path)}

    def made(self, notes: list[str]) -> set[str]:
        """Runs whose file was moved to its place."""
        return {part_name(Path(note)) for note in notes if Path(note).parent.name == "runs"}

    def table(self, output: Path) -> str:
        """The rows of the whole grid, and whether the page is there."""
        rows = pd.read_parquet(output / "table.parquet").drop(columns="seconds")
        if not (output / "study.html").is_file():
            raise FileError("study.html is missing")
        return hashlib.sha256(rows.to_json(double_precision=15).encode()).hexdigest()


class TrainJob(Job):
    """`statesize lab train text` of a few steps."""

    name = "train"
    steps = 10

    def write_inputs(self, folder: Path) -> None:
        """A text."""
        folder.mkdir()
        documents = [" ".join(WORDS[first:] + WORDS[:first]) for first in range(8)]
        (folder / "text.txt").write_text("\n\n".join(documents), encoding="utf-8")

    def arguments(self, folder: Path) -> list[str]:
        """With --resume once there is a checkpoint."""
        output = folder / "output"
        there = (output / "state.safetensors").is_file()
        numbers = {"steps": self.steps, "batch": 1, "length": 4, "evaluate-every": 4, "checkpoint-every": 3}
        options = [word for name, value in numbers.items() for word in (f"--{name}", str(value))]
        where = ["--text", str(folder / "inputs" / "text.txt"), "--output", str(output)]
        begun = ["lab", "train", "text", "--mixer", "gla", *where, *options]
        return [*begun, *["--resume"] * there, "--json"]

    def finished(self, output: Path) -> set[str]:
        """Steps up to the checkpoint."""
        last = _step(output / "state.safetensors")
        return {f"step {step}" for step in range(1, 1 + last)}

    def made(self, notes: list[str]) -> set[str]:
        """The last steps, as many as were added to the log."""
        added = sum(note.startswith("added ") and note.endswith("/log.jsonl") for note in notes)
        return {f"step {step}" for step in range(self.steps + 1 - added, self.steps + 1)}

    def table(self, output: Path) -> str:
        """The best weights, the last ones and the log."""
        parts = [json.loads(line) | {"seconds": 0} for line in (output / "log.jsonl").read_text().splitlines()]
        digest = hashlib.sha256(json.dumps(parts).encode())
        for path in (output / "state.safetensors", output / "best" / "model.safetensors"):
            tensors = safetensors.numpy.load_file(path)
            for name in sorted(tensors):
                digest.update(name.encode() + tensors[name].tobytes())
        digest.update((output / "best" / "config.json").read_bytes())
        digest.update((output / "tokenizer.json").read_bytes())
        return digest.hexdigest()


def _tokenizer() -> tokenizers.Tokenizer:
    return train_tokenizer(["a b"], 257)


def without_digest(name: str) -> str:
    """The name of a part without the digest of its content, which holds the time that measuring took."""
    return _DIGEST.sub("", name)


def part_name(path: Path) -> str:
    """The name of a part, and of the folder that it is in."""
    return without_digest(f"{path.parent.name}/{path.name}")


def _step(path: Path) -> int:
    """The step of a checkpoint; 0 where there is none."""
    if not path.is_file():
        return 0
    with safetensors.safe_open(path, "pt") as stream:
        return int(json.loads(stream.metadata()["statesize"])["step"])


def _readable(path: Path) -> bool:
    try:
        return len(pd.read_parquet(path)) > 0
    except (OSError, ValueError):
        return False


JOBS: dict[str, Job] = {job.name: job for job in (ProfileJob(), StudyJob(), TrainJob())}
