"""What a result carries so that it can be repeated: the command, hashes of what it reads, threads and versions."""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self, cast

import torch

from statesize.benchmarks.machine import machine
from statesize.errors import FileError
from statesize.files import parse_json, read_limited, replace_file
from statesize.version import installed

FILE = "recipe.json"
SCHEMA = 1
PROSE = "the prose of this Python"
"""Stands for what `statesize train` reads without a text of one's own."""

_PACKAGES = ("torch", "numpy", "numba", "tokenizers", "transformers")
# What says nothing of a result: where it is done or written, and how it is told.
ELSEWHERE = frozenset(
    {
        "output",
        "html",
        "json",
        "quiet",
        "plan",
        "dry_run",
        "ray",
        "ray_cpus",
        "export",
        "resume",
        "threads",
        "printing",
    }
)
# What a model's folder is read for; a training's log or its optimizer's state is not.
_OF_MODELS = frozenset({".json", ".safetensors", ".bin", ".pt", ".pth", ".model", ".txt", ".jinja", ".py"})
_BLOCK = 2**20


@dataclass(frozen=True)
class Recipe:
    """How a result was made.

    Attributes:
        command: What followed `statesize`, every option spelt out and paths absolute; without what says where it is
            done or written.
        inputs: SHA-256 of each file and folder that it reads, by absolute path.
        threads: Threads of torch, in each process.
        versions: Of Python and of the packages that do the arithmetic.
        machine: The processor.
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
        """JSON values, of which `from_dict` makes an equal recipe.

        Returns:
            The fields, and the schema's version.
        """
        return {"schema": SCHEMA, **asdict(self), "command": list(self.command)}

    @classmethod
    def from_dict(cls, given: object, place: str) -> Self:
        """The recipe that `to_dict` wrote.

        Args:
            given: JSON values that anybody may have written.
            place: Where they come from, for messages.

        Returns:
            The recipe.

        Raises:
            FileError: They are no recipe, or one of another version.
        """
        values = cast("dict[str, Any]", given) if isinstance(given, dict) else {}
        if values.get("schema") != SCHEMA:
            raise FileError(f"{place} has a recipe of schema {values.get('schema')!r}; this statesize reads {SCHEMA}.")
        tables = [values.get("inputs"), values.get("versions")]
        whole = (
            _are_strings(values.get("command"), list)
            and all(
                isinstance(table, dict) and _are_strings(list(cast("dict[str, Any]", table).values()), list)
                for table in tables
            )
            and type(values.get("threads")) is int
            and values["threads"] > 0
            and isinstance(values.get("machine"), str)
        )
        if not whole:
            raise FileError(f"{place} has a damaged recipe; it tells no command, inputs, threads and versions.")
        return cls(tuple(values["command"]), values["inputs"], values["threads"], values["versions"], values["machine"])


def make_recipe(
    words: Sequence[str],
    options: Mapping[str, object],
    *,
    models: Sequence[str] = (),
    inputs: Mapping[str, str] | None = None,
    threads: int | None = None,
) -> Recipe:
    """The recipe of a command that runs in this process.

    Args:
        words: The command's name, such as ("study", "correlation"), and what follows it that is no model.
        options: Every option by its name in Python; None and False are left out, and so is what says where it is done.
        models: Names or folders of models, which follow the words.
        inputs: Digests of other things that it reads, by name.
        threads: Of torch, in each process; None takes those of this one.

    Returns:
        The recipe.
    """
    read = [Path(model) for model in models if Path(model).is_dir()]
    command = [*words, *(str(Path(model).absolute()) if Path(model).is_dir() else model for model in models)]
    for name, value in options.items():
        if name in ELSEWHERE or value is None or value is False:
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
    """A digest of a file, or of a folder's files of models, texts and settings with their names.

    Args:
        path: A file or folder.

    Returns:
        SHA-256 as 64 hexadecimal digits.

    Raises:
        FileError: It is not there, or cannot be read.
    """
    try:
        if not path.is_dir():
            return _file_sha256(path)
        # The tokenizer of a training lies beside the folder of its best weights.
        beside = path.absolute().parent / "tokenizer.json"
        files = sorted(file for file in path.rglob("*") if file.is_file() and _is_read(file))
        listed = [*files, *([beside] if beside.is_file() and not (path / beside.name).exists() else [])]
        names = [
            f"{file.name if file == beside else file.relative_to(path).as_posix()} {_file_sha256(file)}"
            for file in listed
        ]
        return hashlib.sha256("\n".join(names).encode()).hexdigest()
    except OSError as error:
        raise FileError(f"{path} cannot be read: {error.strerror or error}.") from error


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that do the arithmetic, by name."""
    return installed(*_PACKAGES)


def write_recipe(folder: Path, recipe: Recipe) -> None:
    """Keep a recipe beside the results of its command; a folder that cannot be written is a FileError.

    Args:
        folder: The folder of results.
        recipe: The recipe.
    """
    replace_file(folder / FILE, (json.dumps(recipe.to_dict(), indent=1) + "\n").encode())


def read_json(path: Path) -> dict[str, Any]:
    """An object of a JSON file that anybody may have written.

    Args:
        path: The file.

    Returns:
        Its values.

    Raises:
        FileError: It is not there, or no JSON object.
    """
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
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _are_strings(given: object, kind: type) -> bool:
    return isinstance(given, kind) and all(isinstance(item, str) for item in cast("Iterable[object]", given))
