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

SCHEMA, MARKER, PAGE = 13, "profile.json", "page.html"
"""The version of the format, the file that marks a profile, and the page that `statesize profile` writes beside it."""


@dataclass(frozen=True)
class Marker:
    """The content of `profile.json`.

    Attributes:
        document: What `Profile.to_dict` returns, so that a profile is shown without its arrays.
        nodes: Names of the mixers, in the order of the files; "" for the tokens, which are the first.
        first: Number of the first file: not 0 where it was written beside a profile that it then replaced.
    """

    document: dict[str, Any]
    nodes: list[str]
    first: int = 0
    schema: int = SCHEMA


def read_marker(path: Path) -> Marker:
    """The marker of a profile; a FileError for what is none, is damaged, or is of another schema."""
    require_profile(path)
    try:
        marker = Marker(**json.loads((path / MARKER).read_bytes()))
        if marker.schema != SCHEMA:
            raise ValueError(f"it is of schema version {marker.schema!r}, not {SCHEMA}")
    except (OSError, ValueError, TypeError) as error:
        raise FileError(f"{path} is no profile that this statesize wrote ({error}). Make the profile anew.") from error
    return marker


def profiles_in(path: Path) -> list[Path]:
    """The folder of a profile, or those of the profiles in a folder, by name."""
    # A path that is too long for a name, or has a zero in it, does not exist for os.path.
    if os.path.isfile(path / MARKER):
        return [path]
    return sorted(marker.parent for marker in path.glob(f"*/{MARKER}")) if os.path.isdir(path) else []


def require_profile(path: Path, name: str = "profile") -> None:
    """Refuse what is no folder of a profile."""
    if (several := profiles_in(path)) == [path]:
        return
    wrong = "holds several" if several else "holds none" if os.path.exists(path) else "is not there"
    advice = f"Give one, such as {several[0]}." if several else "`statesize profile MODEL` makes one, MODEL-profile."
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
