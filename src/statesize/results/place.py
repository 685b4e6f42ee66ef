"""Where a profile lies, and its `profile.json`: what is shown of it without its arrays."""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from statesize.errors import FileError
from statesize.io.files import os_errors
from statesize.io.text import meant
from statesize.models.plugins import PROFILE_MARKER as MARKER
from statesize.models.plugins import unfinished

FORMAT, SCHEMA, PAGE = "statesize-profile", 12, "page.html"
"""What a marker says, and the page that `statesize profile` writes beside it."""


@dataclass(frozen=True)
class Marker:
    """The content of `profile.json`.

    Attributes:
        document: What `Profile.to_dict` returns, so that a profile is shown without its arrays.
        nodes: Names of the mixers, in the order of the files; "" for the tokens, which are the first.
    """

    document: dict[str, Any]
    nodes: list[str]
    format: str = FORMAT
    schema: int = SCHEMA


def read_marker(path: Path) -> Marker:
    """The marker of a profile; a FileError for what is none, is damaged, or is of another schema."""
    require_profile(path)
    try:
        marker = Marker(**json.loads((path / MARKER).read_bytes()))
    except (OSError, ValueError, TypeError) as error:
        raise FileError(f"{path} is no profile that this statesize wrote ({error}). Make the profile anew.") from error
    if (marker.format, marker.schema) != (FORMAT, SCHEMA):
        raise FileError(
            f"{path} is a profile of schema version {marker.schema!r}, and this statesize reads version {SCHEMA}. Make "
            "the profile anew, or use the version of statesize that wrote it."
        )
    return marker


def profiles_in(path: Path) -> list[Path]:
    """The folders of profiles in a folder, by name."""
    # A path that is too long for a name, or has a zero in it, does not exist for os.path.
    return sorted(marker.parent for marker in path.glob(f"*/{MARKER}")) if os.path.isdir(path) else []


def require_profile(path: Path, name: str = "profile") -> None:
    """Refuse what is no folder of a profile."""
    there = os.path.exists(path)
    if there and (path / MARKER).is_file():
        return
    wrong = "holds none" if there else "is not there"
    advice = unfinished(path).strip() or f"Make one: statesize profile MODEL --output {path}"
    if inside := profiles_in(path):
        wrong, advice = "holds several", f"Give one, such as {inside[0]}."
    elif not there:
        advice = meant(path.name, {folder.name: str(folder) for folder in profiles_in(path.parent)}, advice)
    raise FileError(f"{name} must be the folder of a profile, got {path}, which {wrong}. {advice}")


def check_destination(path: Path, name: str = "path") -> None:
    """Refuse a path where a profile cannot or must not be written, before any work is done."""
    if os.path.lexists(path) and not path.is_dir():
        raise FileError(f"{name} must be a folder, got {path}, which is a file. Give another name.")
    if path.is_dir() and not (path / MARKER).is_file():
        wrong = "which holds something else. It is left alone; give another name"
        raise FileError(f"{name} must be a new folder or that of a profile, got {path}, {wrong}.")
    with os_errors(f"{path} cannot be written", "Give a path in a writable folder."):
        os.rmdir(tempfile.mkdtemp(prefix=".statesize-", dir=path.absolute().parent))
