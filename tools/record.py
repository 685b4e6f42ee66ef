"""Puts a study on record: python -m tools.record STUDY FOLDER [PRESET], the folder of `statesize study`.

Studies of texts have no preset.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

from PIL import Image

from statesize.io.files import replace_files
from statesize.lab.studies.catalogue import GRID_STUDIES
from statesize.lab.studies.grid.settings import preset_settings
from statesize.lab.studies.grid.table import ResultTable
from statesize.lab.studies.page.conclusion import known, read_saved
from statesize.lab.studies.record import RECORD, TABLE, make_record, read_record, write_record

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "results" / "studies"


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
    path = f"src/statesize/lab/studies/{study}/{preset}.toml"
    if _git("status", "--porcelain", "--", path):
        raise ValueError(f"{path} must be committed before its runs are put on record.")
    return _git("log", "-1", "--format=%H", "--", path)


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=ROOT, check=True, capture_output=True, text=True).stdout.strip()  # noqa: S603, S607


def _today() -> str:
    return datetime.now(UTC).date().isoformat()


def record_text(study: str, folder: Path) -> None:
    """Put a study of the bundled models on record: its table and its conclusion.

    Args:
        study: Name of the study.
        folder: As `statesize study` wrote it.
    """
    saved, table = read_saved(folder), (folder / TABLE).read_bytes()
    said = vars(saved.conclusion) | {"figures": known(saved.conclusion.figures)}
    versions = ", ".join(f"{name} {version}" for name, version in saved.versions.items())
    made = {"commit": _git("rev-parse", "HEAD"), "command": saved.command, "versions": versions, "date": _today()}
    document = {"schema": 1, "made": made, "table_sha256": hashlib.sha256(table).hexdigest(), **said}
    content = json.dumps(document, indent=1, ensure_ascii=False).encode() + b"\n"
    replace_files(RESULTS / study, {TABLE: table, RECORD: content})


def record_grid(study: str, folder: Path, preset: str) -> None:
    """Put the runs of a preset on record, those that are done.

    Args:
        study: Name of the study.
        folder: As `statesize study` wrote it.
        preset: Name of the preset.
    """
    asked = preset_settings(study, preset)
    rows = ResultTable.open(folder, study).rows(asked.runs)
    made = make_record(
        asked,
        preset,
        fixing_commit(study, preset),
        _today(),
        read_saved(folder).machine,
        rows,
    )
    write_record(made, RESULTS / study)
    draw(study)


def draw(study: str) -> None:
    """Draw the table on record for the page of the study.

    Args:
        study: Name of a study that trains a grid.
    """
    record = read_record(RESULTS / study)
    metric = preset_settings(study, record.preset).runs[0].measuring.claim_metric
    path = ROOT / "docs" / "images" / f"study-{study}.png"
    GRID_STUDIES[study].charts(record.rows, metric).save(str(path))
    # A fifth of the bytes, and the same to the eye.
    Image.open(path).convert("RGB").quantize(256, Image.Quantize.FASTOCTREE).save(path, optimize=True)


if __name__ == "__main__":
    name, place, *chosen = sys.argv[1:]
    if chosen:
        record_grid(name, Path(place), *chosen)
    else:
        record_text(name, Path(place))
