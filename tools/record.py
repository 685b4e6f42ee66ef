"""Puts a study on record: python -m tools.record STUDY FOLDER PRESET, the folder of `statesize lab study`.

`python -m tools.record STUDY` writes the summary on record anew from its table, where the analysis gives other figures.
"""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path

from PIL import Image

from statesize.io.files import replace_file, replace_files
from statesize.lab.studies import Study
from statesize.lab.studies import study as studies
from statesize.lab.studies.engine.charts import draw
from statesize.lab.studies.engine.record import RECORD, record_files, summary
from statesize.lab.studies.engine.run import CONCLUSION, stored_rows
from statesize.lab.studies.engine.table import TABLE, StudyTable, parse_rows
from tools.figures.on_record import EXPERIMENTS, record_folder

ROOT = Path(__file__).parents[1]


def fixing_commit(study: Study) -> str:
    """The commit that last changed the file of a study, which must be committed before its runs; else a ValueError."""
    path = inspect.getsourcefile(type(study)) or ""
    if _git("status", "--porcelain", "--", path):
        raise ValueError(f"The grids of {path} must be committed before their runs are put on record.")
    return _git("log", "-1", "--format=%H", "--", path)


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=ROOT, check=True, capture_output=True, text=True).stdout.strip()  # noqa: S603, S607


def record(study: Study, folder: Path, preset: str) -> None:
    """Put the runs of a preset in the folder of `statesize lab study` on record, those done, with their picture."""
    runs = study.runs(study.preset(preset))
    rows = stored_rows(study, runs, folder)
    run = "python -m experiments." if study.kind in EXPERIMENTS else "statesize lab study "
    made = {
        "commit": fixing_commit(study),
        "command": f"{run}{study.kind} --preset {preset}",
        "date": datetime.now(UTC).date().isoformat(),
        "machine": json.loads((folder / CONCLUSION).read_bytes())["machine"],
    }
    replace_files(ROOT / record_folder(study.kind), record_files(study, preset, rows, made))
    picture(study, StudyTable(rows))


def picture(study: Study, table: StudyTable) -> None:
    """Draw the picture of a record."""
    path = ROOT / "docs" / "images" / f"study-{study.kind}.png"
    draw(study, table).save(str(path))
    # A fifth of the bytes, and the same to the eye.
    Image.open(path).convert("RGB").quantize(256, Image.Quantize.FASTOCTREE).save(path, optimize=True)


def summarise(study: Study) -> None:
    """Write the summary on record anew from its table."""
    folder = ROOT / record_folder(study.kind)
    kept, rows = json.loads((folder / RECORD).read_bytes()), parse_rows((folder / TABLE).read_bytes())
    document = kept | summary(study, kept["preset"], rows)
    replace_file(folder / RECORD, json.dumps(document, indent=1, ensure_ascii=False).encode() + b"\n")


if __name__ == "__main__":
    if sys.argv[1] in EXPERIMENTS:
        import_module(f"experiments.{sys.argv[1]}")
    chosen = studies[sys.argv[1]]()
    if sys.argv[2:]:
        record(chosen, Path(sys.argv[2]), sys.argv[3])
    else:
        summarise(chosen)
