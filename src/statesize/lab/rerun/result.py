"""Results on disk that can be repeated: profiles, studies, trainings, and documents of --json."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import safetensors.numpy

from statesize.errors import FileError
from statesize.io.files import check_header, read_limited
from statesize.io.recipe import FILE, PROSE, Recipe, content_sha256, read_json, versions
from statesize.lab.rerun.comparing import (
    DIFFERENT,
    IDENTICAL,
    Compared,
    compare_arrays,
    compare_documents,
    compare_profiles,
    compare_rows,
)
from statesize.lab.studies.grid.table import MOST_TABLE, parse_rows
from statesize.lab.training.record import read_records
from statesize.profiling import Profile
from statesize.results.store import MARKER

_LOG, _EXPORTED, _WEIGHTS = "log.jsonl", "training.json", "model.safetensors"
_TABLES = ("table.parquet", "curves.parquet")


@dataclass(frozen=True, eq=False)
class Result:
    """A file or folder of results with what it says of how it was made."""

    path: Path
    recipe: Recipe

    @property
    def is_document(self) -> bool:
        """Whether it is what a command printed with --json."""
        return self.path.is_file()

    @property
    def has_folder(self) -> bool:
        """Whether a folder was written too; a profile that is not kept has counts at one tolerance."""
        ratios = read_json(self.path).get("relative_tolerances") if self.is_document else None
        return not (isinstance(ratios, list) and len(cast("list[object]", ratios)) == 1)

    @property
    def is_export(self) -> bool:
        """Whether it is what `statesize train --export` wrote."""
        return (self.path / _EXPORTED).is_file()

    def compare(self, repeated: Path) -> list[Compared]:
        """This result against its repetition: one entry a layer, run, model or part of a training."""
        if self.is_document:
            return compare_documents(read_json(self.path), read_json(repeated))
        if (self.path / MARKER).is_file():
            return compare_profiles(Profile.load(self.path), Profile.load(repeated))
        if self.is_export:
            record = compare_documents(*(read_json(folder / _EXPORTED) for folder in (self.path, repeated)))
            return [*record, compare_arrays("weights", _weights(self.path), _weights(repeated))]
        if (self.path / _LOG).is_file():
            return _compare_trainings(self.path, repeated)
        compared_parts: list[Compared] = []
        for name in _TABLES:
            if name == _TABLES[0] or (self.path / name).is_file():
                compared = compare_rows(_rows(self.path / name), _rows(repeated / name))
                suffix = "" if name == _TABLES[0] else f", {Path(name).stem}"
                compared_parts += [dataclasses.replace(one, part=one.part + suffix) for one in compared]
        return compared_parts


def read_result(path: Path) -> Result:
    """A profile, the folder of a study or a training, or a file of what a command printed with --json."""
    if not path.exists():
        raise FileError(f"There is no result at {path}.")
    if path.is_file():
        content = read_json(path).get("recipe")
    elif (path / MARKER).is_file():
        content = Profile.load(path).attributes.get("recipe")
    else:
        exported = read_json(path / _EXPORTED).get("recipe") if (path / _EXPORTED).is_file() else None
        content = read_json(path / FILE) if (path / FILE).is_file() else exported
    if content is None:
        raise FileError(
            f"{path} does not say by which command it was made: it is no result of `statesize profile`, `study` or "
            "`train`, comes from a Python program, or from an older statesize. Make it anew by a command."
        )
    return Result(path, Recipe.from_dict(content, str(path)))


def check_inputs(recipe: Recipe) -> None:
    """Refuse to repeat a result whose models, texts or settings are gone or no longer the same."""
    for name, digest in recipe.inputs.items():
        if name == PROSE:
            from statesize.lab.tasks.language.corpus import python_prose

            now = python_prose().sha256
        elif not Path(name).exists():
            raise FileError(f"{name} is no longer there; it was read for this result and had the SHA-256 {digest}.")
        else:
            now = content_sha256(Path(name))
        if now != digest:
            raise FileError(
                f"{name} is not what was read for this result: its SHA-256 is {now[:16]}… and was {digest[:16]}…. "
                "Bring back what it was, or make the result anew."
            )


def changed_versions(recipe: Recipe) -> list[str]:
    """What is of another version than it was, such as "torch 2.12.0, now 2.13.0"."""
    now = versions()
    names = dict.fromkeys((*recipe.versions, *now))
    return [
        f"{name} {recipe.versions.get(name, 'missing')}, now {now.get(name, 'missing')}"
        for name in names
        if recipe.versions.get(name) != now.get(name)
    ]


def _compare_trainings(before: Path, after: Path) -> list[Compared]:
    logs = [read_records(folder / _LOG) for folder in (before, after)]
    first, second = ([dataclasses.replace(record, seconds=0.0) for record in log] for log in logs)
    apart = next((one for one, other in zip(first, second, strict=False) if one != other), None)
    if apart is not None:
        losses = [abs(one.loss - other.loss) for one, other in zip(first, second, strict=False)]
        steps = Compared("steps", DIFFERENT, f"from step {apart.step} on; losses differ by up to {max(losses):.1e}")
    elif len(first) != len(second):
        steps = Compared("steps", DIFFERENT, f"the result has {len(first)} steps, the repetition {len(second)}")
    else:
        steps = Compared("steps", IDENTICAL)
    return [steps, compare_arrays("best weights", _weights(before / "best"), _weights(after / "best"))]


def _weights(folder: Path) -> dict[str, Any]:
    try:
        check_header(folder / _WEIGHTS)
        return safetensors.numpy.load_file(folder / _WEIGHTS)
    except (OSError, safetensors.SafetensorError) as error:
        raise FileError(f"{folder / _WEIGHTS} cannot be read ({error}); is the training done?") from error


def _rows(path: Path) -> list[dict[str, Any]]:
    try:
        return parse_rows(read_limited(path, MOST_TABLE))
    except (OSError, ValueError) as error:
        raise FileError(f"{path} cannot be read ({error}); is the study done?") from error
