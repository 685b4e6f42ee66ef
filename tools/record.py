"""Puts a study on record: python -m tools.record STUDY FOLDER PRESET, the folder of `statesize study`.

`python -m tools.record STUDY` writes the summary on record anew from its table, where the analysis gives other figures.
"""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

from PIL import Image

from statesize.lab.studies.catalogue import load_study
from statesize.lab.studies.engine.conclusion import read_saved
from statesize.lab.studies.engine.record import make_record, read_record, write_record
from statesize.lab.studies.engine.run import stored_rows
from statesize.lab.studies.engine.study import Study

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "results" / "studies"


def fixing_commit(study: Study, preset: str) -> str:
    """The commit that fixed a preset; a preset that is not committed is a ValueError.

    Args:
        study: The study.
        preset: Name of the preset.

    Returns:
        Its hash.

    Raises:
        ValueError: The preset is not committed.
    """
    path = f"src/statesize/lab/studies/{study.name}.py"
    if study.presets[preset] not in _git("show", f"HEAD:{path}"):
        raise ValueError(f"The preset {preset} of {path} must be committed before its runs are put on record.")
    return _git("log", "-1", "--format=%H", f"-S{study.presets[preset]}", "--", path)


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=ROOT, check=True, capture_output=True, text=True).stdout.strip()  # noqa: S603, S607


def _today() -> str:
    return datetime.now(UTC).date().isoformat()


def record(study: Study, folder: Path, preset: str) -> None:
    """Put the runs of a preset on record, those that are done, with their picture.

    Args:
        study: The study.
        folder: As `statesize study` wrote it.
        preset: Name of the preset.
    """
    rows, done_on = stored_rows(study, study.preset(preset), folder), read_saved(folder).machine
    write_record(
        make_record(study, preset, fixing_commit(study, preset), _today(), done_on, rows), RESULTS / study.name
    )
    draw(study)


def draw(study: Study) -> None:
    """Draw the table on record for the page of the study.

    Args:
        study: A study with a record.
    """
    kept = read_record(study, RESULTS / study.name)
    path = ROOT / "docs" / "images" / f"study-{study.name}.png"
    study.charts(kept.rows, study.preset(kept.preset).metric).save(str(path))
    # A fifth of the bytes, and the same to the eye.
    Image.open(path).convert("RGB").quantize(256, Image.Quantize.FASTOCTREE).save(path, optimize=True)


def summarise(study: Study) -> None:
    """Write the summary on record anew from its table.

    Args:
        study: A study with a record.
    """
    write_record(read_record(study, RESULTS / study.name), RESULTS / study.name)


if __name__ == "__main__":
    one = load_study(sys.argv[1])
    if sys.argv[2:]:
        record(one, Path(sys.argv[2]), sys.argv[3])
    else:
        summarise(one)
