"""What a result carries so that it can be repeated: the command, hashes of what it reads, threads and versions."""

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
"""Stands for what `statesize train` reads without a text of one's own."""

_PACKAGES = ("torch", "numpy", "numba", "tokenizers", "transformers")
# Options that do not affect the result: where it is computed or written, and how it is printed.
IGNORED_OPTIONS = frozenset(
    {
        *("output", "html", "json", "quiet", "printing", "export", "resume"),
        *("plan", "dry_run", "ray", "ray_cpus", "threads"),
    }
)
# What a model's folder is read for; a training's log or its optimizer's state is not.
_OF_MODELS = frozenset({".json", ".safetensors", ".bin", ".pt", ".pth", ".model", ".txt", ".jinja", ".py"})
_BLOCK = 2**20


@dataclass(frozen=True)
class Recipe:
    """How a result was made.

    Attributes:
        command: What followed `statesize`, every option spelt out and paths absolute, without IGNORED_OPTIONS.
        inputs: SHA-256 of each file and folder that it reads, by absolute path.
        threads: Threads of torch in each process.
    """

    command: tuple[str, ...]
    inputs: dict[str, str]
    threads: int
    versions: dict[str, str]
    machine: str

    @property
    def line(self) -> str:
        """The command as one types it."""
        return shlex.join(["statesize", *self.command])

    def to_dict(self) -> dict[str, Any]:
        """JSON values, of which `from_dict` makes an equal recipe."""
        return {"schema": SCHEMA, **asdict(self), "command": list(self.command)}

    @classmethod
    def from_dict(cls, given: object, place: str) -> Self:
        """The recipe that `to_dict` wrote, from JSON values of `place` that anybody may have written."""
        values = cast("dict[str, Any]", given) if isinstance(given, dict) else {}
        if values.get("schema") != SCHEMA:
            raise FileError(f"{place} has a recipe of schema {values.get('schema')!r}; this statesize reads {SCHEMA}.")
        texts = (("command", list), ("inputs", dict), ("versions", dict))
        whole = all(_holds_texts(values.get(name), kind) for name, kind in texts)
        threads = values.get("threads")
        if not (whole and type(threads) is int and threads > 0 and isinstance(values.get("machine"), str)):
            raise FileError(f"{place} has a damaged recipe; it tells no command, inputs, threads and versions.")
        return cls(tuple(values["command"]), values["inputs"], threads, values["versions"], values["machine"])


def make_recipe(
    words: Sequence[str],
    options: Mapping[str, object],
    *,
    models: Sequence[str] = (),
    inputs: Mapping[str, str] | None = None,
    threads: int | None = None,
) -> Recipe:
    """The recipe of a command that runs in this process: its words, its models, its options by Python's names."""
    # `inputs` are digests of other things that it reads, by name; None takes the threads of this process.
    read = [Path(model) for model in models if Path(model).is_dir()]
    command = [*words, *(str(Path(model).absolute()) if Path(model).is_dir() else model for model in models)]
    for name, value in options.items():
        if name in IGNORED_OPTIONS or value is None or value is False:
            continue
        for one in cast("Iterable[object]", value) if isinstance(value, list | tuple) else (value,):
            if isinstance(one, Path) or (name == "dataset" and Path(str(one)).exists()):
                read.append(Path(str(one)))
                one = read[-1].absolute()
            option = f"--{name.replace('_', '-')}"
            command.append(option if one is True else f"{option}={one}")
    digests = {str(path.absolute()): content_sha256(path) for path in read}
    return Recipe(
        tuple(command), digests | dict(inputs or {}), threads or torch.get_num_threads(), versions(), machine()
    )


def content_sha256(path: Path) -> str:
    """SHA-256 of a file, or of a folder's files of models, texts and settings with their names."""
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
    files = sorted(file for file in path.rglob("*") if file.is_file() and _is_read(file))
    # The tokenizer of a training lies beside the folder of its best weights.
    beside = path.absolute().parent / "tokenizer.json"
    return [*files, *([beside] if beside.is_file() and not (path / beside.name).exists() else [])]


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that do the arithmetic, by name."""
    return installed(*_PACKAGES)


def write_recipe(folder: Path, recipe: Recipe) -> None:
    """Keep a recipe beside the results of its command; a folder that cannot be written is a FileError."""
    replace_file(folder / FILE, (json.dumps(recipe.to_dict(), indent=1) + "\n").encode())


def read_json(path: Path) -> dict[str, Any]:
    """An object of a JSON file that anybody may have written."""
    try:
        values = parse_json(read_limited(path))
    except (OSError, ValueError) as error:
        raise FileError(f"{path} cannot be read as JSON ({error}).") from error
    if not isinstance(values, dict):
        raise FileError(f"{path} holds no JSON object.")
    return cast("dict[str, Any]", values)


def _is_read(file: Path) -> bool:
    return file.suffix in _OF_MODELS | {".parquet", ".arrow", ".jsonl"}


def _file_sha256(path: Path) -> str:
    with require_regular(path).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _holds_texts(given: object, kind: type) -> bool:
    """Whether it is a list of texts, or a dict with texts for values."""
    items = cast("dict[str, object]", given).values() if isinstance(given, dict) else given
    return isinstance(given, kind) and all(isinstance(item, str) for item in cast("Iterable[object]", items))


MOST_INPUT = 2**38
"""Bytes of an input that is digested without being named again."""

_PATHS = re.compile(r"--(?:text|jsonl|parquet|ids|config|module|dataset)=(.*)", re.DOTALL)


def check_trust(recipe: Recipe, folder: Path, named: Sequence[Path]) -> None:
    """Refuse threads that are not here, and inputs outside of `folder` that are not `named`, before any is read."""
    cores = os.cpu_count() or 1
    if recipe.threads > cores:
        refuse("threads", f"between 1 and {cores}, the cores of this machine", recipe.threads)
    for path in _paths(recipe):
        if path not in recipe.inputs:
            raise FileError(f"{path} must be among the inputs of the result, got only its name without its SHA-256.")
    folder, trusted = folder.resolve(), [path.resolve() for path in named]
    for name in recipe.inputs.keys() - {PROSE}:
        place = require_path("an input of the result", name)
        if any(place.resolve().is_relative_to(one) for one in trusted):
            continue
        files = input_files(place)
        if not all(file.resolve().is_relative_to(folder) for file in (place, *files)):
            raise FileError(
                f"{name} must lie in {folder}, as the result does, got a place outside. If it is to be read, give "
                f"--input {name}."
            )
        size = sum(file.stat().st_size for file in files)
        if size > MOST_INPUT:
            raise FileError(
                f"{name} must have at most {MOST_INPUT:,} bytes, got {size:,}. To read it all, give --input {name}."
            )


def _paths(recipe: Recipe) -> Iterator[str]:
    """What the command names as a file or folder that it reads."""
    bundled = bundled_names(recall=True)
    for word in recipe.command[1:]:
        option = _PATHS.fullmatch(word)
        if option is not None and (not word.startswith("--dataset=") or os.path.exists(option[1])):
            yield option[1]
        elif not word.startswith("-") and word not in bundled and os.path.isdir(word):
            yield word
