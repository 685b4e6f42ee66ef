"""Names of folders that are not there, and what they may have been meant to be."""

from __future__ import annotations

import difflib
from pathlib import Path

from statesize.errors import FileError
from statesize.lab import zoo

_ALIKE = 0.85
"""How alike a folder's name is to one without a slash, which may well be of the hub, before that is not asked."""


def refuse_misspelt(name: str) -> None:
    """Refuse what can only be a folder and is not there, or is spelt almost as one, before the hub is asked for it."""
    path = Path(name).expanduser()
    if path.exists():
        return
    local = name.startswith((".", "/", "~")) or name.count("/") > 1 or ("/" in name and path.parent.is_dir())
    beside = sorted(path.parent.iterdir()) if path.parent.is_dir() and (local or "/" not in name) else []
    models = {one.name: one for one in beside if (one / "config.json").is_file()}
    near = difflib.get_close_matches(path.name, models, 1, cutoff=0.6 if local else _ALIKE)
    if local or near:
        advice = f"Did you mean {models[near[0]]}?" if near else "Give a folder that is there."
        raise FileError(
            f"model must be a bundled name ({', '.join(zoo.names())}), a folder or an id of the Hugging Face hub, got "
            f"{name!r}, which is no folder. {advice}"
        )
