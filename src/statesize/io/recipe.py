"""The recipe of a result, with which it can be repeated: its command, hashes of its inputs, threads and versions."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self, cast

import torch

from statesize.check import refuse, require_path
from statesize.errors import FileError
from statesize.io.files import parse_json, read_limited, replace_file, require_regular
from statesize.io.machine import machine
from statesize.laboratory import bundled_names
from statesize.version import installed

FILE = "recipe.json"
SCHEMA = 1
PROSE = "the prose of this Python"
"""Name of the default input of `statesize train`."""

MOST_INPUT = 2**38
"""Largest input that is digested without `--input`, in bytes."""

# Options that do not affect the result: where it is computed or written, and how it is printed.
IGNORED_OPTIONS = frozenset(
    {
        *("output", "html", "json", "quiet", "printing", "resume"),
        *("plan", "dry_run", "ray", "ray_cpus", "threads"),
    }
)
# Files of models and data sets; the log of a training or the state of its optimizer has another suffix.
_DIGESTED = frozenset(
    {
        *(".json", ".safetensors", ".bin", ".pt", ".pth", ".model", ".txt", ".jinja", ".py"),
        *(".parquet", ".arrow", ".jsonl"),
    }
)
_INPUT_OPTION = re.compile(r"--(?:text|jsonl|parquet|ids|config|module|dataset)=(.*)", re.DOTALL)


@dataclass(frozen=True)
class Recipe:
    """How a result was made."""

    command: tuple[str, ...]  # the arguments of `statesize`, with absolute paths, without IGNORED_OPTIONS
    inputs: dict[str, str]  # SHA-256 of each file and folder that it reads, by absolute path
    threads: int  # of torch in each process
    versions: dict[str, str]
    machine: str

    @property
    def line(self) -> str:
        """The command for a shell."""
        return shlex.join(["statesize", *self.command])

    def to_dict(self) -> dict[str, Any]:
        """The recipe as JSON values."""
        return {"schema": SCHEMA, **asdict(self), "command": list(self.command)}

    @classmethod
    def from_dict(cls, document: object, source: str) -> Self:
        """The recipe from untrusted JSON values; messages name the `source`."""
        values = cast("dict[str, Any]", document) if isinstance(document, dict) else {}
        if values.get("schema") != SCHEMA:
            raise FileError(f"{source} has a recipe of schema {values.get('schema')!r}; this statesize reads {SCHEMA}.")
        texts = (("command", list), ("inputs", dict), ("versions", dict))
        valid = all(_holds_texts(values.get(name), kind) for name, kind in texts)
        threads = values.get("threads")
        if not (valid and type(threads) is int and threads > 0 and isinstance(values.get("machine"), str)):
            raise FileError(f"{source} has a damaged recipe; it must hold command, inputs, threads and versions.")
        return cls(tuple(values["command"]), values["inputs"], threads, values["versions"], values["machine"])


def make_recipe(
    words: Sequence[str],
    options: Mapping[str, object],
    *,
    models: Sequence[str] = (),
    inputs: Mapping[str, str] | None = None,
    threads: int | None = None,
) -> Recipe:
    """The recipe of a command: its words, models, options by Python name, and digests of further inputs by name."""
    read = [Path(model) for model in models if Path(model).is_dir()]
    command = [*words, *(str(Path(model).absolute()) if Path(model).is_dir() else model for model in models)]
    for name, value in options.items():
        if name in IGNORED_OPTIONS or value is None or value is False:
            continue
        option = f"--{name.replace('_', '-')}"
        for item in cast("Iterable[object]", value) if isinstance(value, list | tuple) else (value,):
            if isinstance(item, Path) or (name == "dataset" and Path(str(item)).exists()):
                read.append(Path(str(item)))
                item = read[-1].absolute()
            command.append(option if item is True else f"{option}={item}")
    digests = {str(path.absolute()): content_sha256(path) for path in read}
    return Recipe(
        tuple(command), digests | dict(inputs or {}), threads or torch.get_num_threads(), versions(), machine()
    )


def content_sha256(path: Path) -> str:
    """SHA-256 of a file, or of the names and contents of a folder's files of models, texts and settings."""
    try:
        if not path.is_dir():
            return _file_sha256(path)
        names = [
            f"{file.relative_to(path).as_posix() if file.is_relative_to(path) else file.name} {_file_sha256(file)}"
            for file in input_files(path)
        ]
        return hashlib.sha256("\n".join(names).encode()).hexdigest()
    except OSError as error:
        raise FileError(f"{path} cannot be read: {error.strerror or error}.") from error


def input_files(path: Path) -> list[Path]:
    """The files of an input: itself, or the files of a folder that are digested."""
    if not path.is_dir():
        return [path] if path.is_file() else []
    files = sorted(file for file in path.rglob("*") if file.is_file() and file.suffix in _DIGESTED)
    # The tokenizer of a training is beside the folder of its best weights.
    beside = path.absolute().parent / "tokenizer.json"
    return [*files, *([beside] if beside.is_file() and not (path / beside.name).exists() else [])]


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that affect results, by name."""
    return installed("torch", "numpy", "numba", "tokenizers", "transformers")


def write_recipe(folder: Path, recipe: Recipe) -> None:
    """Write a recipe to the folder of its results; FileError if the folder cannot be written."""
    replace_file(folder / FILE, (json.dumps(recipe.to_dict(), indent=1) + "\n").encode())


def read_json(path: Path) -> dict[str, Any]:
    """The object in an untrusted JSON file."""
    try:
        values = parse_json(read_limited(path))
    except (OSError, ValueError) as error:
        raise FileError(f"{path} cannot be read as JSON ({error}).") from error
    if not isinstance(values, dict):
        raise FileError(f"{path} holds no JSON object.")
    return cast("dict[str, Any]", values)


def _file_sha256(path: Path) -> str:
    with require_regular(path).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _holds_texts(value: object, kind: type) -> bool:
    """Whether a value is a list of texts, or a dict with texts for values."""
    items = cast("dict[str, object]", value).values() if isinstance(value, dict) else value
    return isinstance(value, kind) and all(isinstance(item, str) for item in cast("Iterable[object]", items))


def check_trust(recipe: Recipe, folder: Path, named: Sequence[Path]) -> None:
    """Refuse more threads than cores, and inputs outside `folder` that are not `named`, before any file is read."""
    cores = os.cpu_count() or 1
    if recipe.threads > cores:
        refuse("threads", f"between 1 and {cores}, the cores of this machine", recipe.threads)
    for path in _input_paths(recipe):
        if path not in recipe.inputs:
            raise FileError(f"{path} must be among the inputs of the result, got only its name without its SHA-256.")
    folder, trusted = folder.resolve(), [path.resolve() for path in named]
    for name in recipe.inputs.keys() - {PROSE}:
        path = require_path("an input of the result", name)
        if any(path.resolve().is_relative_to(parent) for parent in trusted):
            continue
        files = input_files(path)
        if not all(file.resolve().is_relative_to(folder) for file in (path, *files)):
            raise FileError(
                f"{name} must lie in {folder}, as the result does, got a path outside. If it may be read, give "
                f"--input {name}."
            )
        size = sum(file.stat().st_size for file in files)
        if size > MOST_INPUT:
            raise FileError(
                f"{name} must have at most {MOST_INPUT:,} bytes, got {size:,}. To read it all, give --input {name}."
            )


def _input_paths(recipe: Recipe) -> Iterator[str]:
    """Files and folders that the command reads."""
    bundled = bundled_names(recall=True)
    for word in recipe.command[1:]:
        option = _INPUT_OPTION.fullmatch(word)
        if option is not None and (not word.startswith("--dataset=") or os.path.exists(option[1])):
            yield option[1]
        elif not word.startswith("-") and word not in bundled and os.path.isdir(word):
            yield word
