"""Puts the runs of a study on record: python -m tools.record STUDY PRESET FOLDER, the folder of `statesize study`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from statesize.studies.grid.settings import preset_settings
from statesize.studies.grid.table import ResultTable
from statesize.studies.record import make_record, write_record

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "docs" / "results"


def fixing_commit(study: str, preset: str) -> str:
    """The commit that fixed a preset; a preset with changes that are not committed is a ValueError.

    Args:
        study: Name of the study.
        preset: Name of the preset.

    Returns:
        Its hash.

    Raises:
        ValueError: The preset has changes that are not committed.
    """
    path = f"src/statesize/studies/{study}/{preset}.toml"
    if _git("status", "--porcelain", "--", path):
        raise ValueError(f"{path} must be committed before its runs are put on record.")
    return _git("log", "-1", "--format=%H", "--", path)


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=ROOT, check=True, capture_output=True, text=True).stdout.strip()  # noqa: S603, S607


if __name__ == "__main__":
    name, chosen, folder = sys.argv[1:]
    asked = preset_settings(name, chosen)
    rows = ResultTable.open(Path(folder), name).rows(asked.runs)
    write_record(make_record(asked, chosen, fixing_commit(name, chosen), rows), RESULTS / name)
