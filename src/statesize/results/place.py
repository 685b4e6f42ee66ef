"""Where a profile lies, which is known without reading it."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from statesize.errors import FileError
from statesize.io.files import os_errors, require_parent
from statesize.io.text import meant
from statesize.models.plugins import PROFILE_MARKER as MARKER
from statesize.models.plugins import is_brought, is_gguf, unfinished


def require_profile(path: Path, name: str = "profile") -> None:
    """Refuse what is no folder of a profile."""
    # A path that is too long for a name, or has a zero in it, does not exist for os.path.
    there = os.path.exists(path)
    if there and (path / MARKER).is_file():
        return
    if inside := sorted(str(marker.parent) for marker in path.glob(f"*/{MARKER}")) if there else []:
        wrong = f"which holds several. Give one, such as {inside[0]}"
        raise FileError(f"{name} must be the folder of a profile, got {path}, {wrong}.")
    brought = is_brought(str(path))
    model = path if brought or (there and (path.is_dir() or is_gguf(path))) else "MODEL"
    if there and path.is_file() and model == "MODEL":
        raise FileError(
            f"{name} must be the folder of a profile, got {path}, a file, which holds none. Leave it out, or give a "
            "folder."
        )
    folder = f"{path.stem}-profile" if there or brought else path
    made = f"Make one: statesize profile {model} --output {folder}"
    beside = {marker.parent.name: str(marker.parent) for marker in path.parent.glob(f"*/{MARKER}")} if not there else {}
    wrong = "holds none" if there else "is not there"
    advice = unfinished(path).strip() or meant(path.name, beside, made)
    raise FileError(f"{name} must be the folder of a profile, got {path}, which {wrong}. {advice}")


KEPT = "taken from an earlier run over the same model, texts and settings; remove the folder to measure anew"


def written_at(path: Path) -> int | None:
    """When the profile of a folder was written, by which one that is kept is told; None without one."""
    marker = path / MARKER
    return marker.stat().st_mtime_ns if marker.is_file() else None


def check_destination(path: Path, name: str = "path") -> None:
    """Refuse a path where a profile cannot or must not be written, before any work is done."""
    require_parent(path, name)
    check_free(path, name)
    with os_errors(f"{path} cannot be written", "Give a path in a writable folder."):
        os.rmdir(tempfile.mkdtemp(prefix=".statesize-", dir=path.absolute().parent))


def check_free(path: Path, name: str = "path") -> None:
    """Refuse a file, and a folder of anything else."""
    if os.path.lexists(path) and not path.is_dir():
        raise FileError(f"{name} must be a folder, got {path}, which is a file. Give another name.")
    if path.is_dir() and not (path / MARKER).is_file():
        wrong = "which holds something else. It is left alone; give another name"
        raise FileError(f"{name} must be a new folder or that of a profile, got {path}, {wrong}.")
