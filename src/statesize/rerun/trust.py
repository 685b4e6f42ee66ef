"""What a stranger's result may have read again and used here when it is repeated."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from statesize.check import refuse, require_path
from statesize.errors import FileError
from statesize.lab import zoo
from statesize.rerun.recipe import PROSE, Recipe, input_files

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
    bundled = {*zoo.names(), *zoo.recall_names()}
    for word in recipe.command[1:]:
        option = _PATHS.fullmatch(word)
        if option is not None and (not word.startswith("--dataset=") or os.path.exists(option[1])):
            yield option[1]
        elif not word.startswith("-") and word not in bundled and os.path.isdir(word):
            yield word
