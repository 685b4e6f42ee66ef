"""Constants of `GLA_STUDENTS`: `python benchmarks/student_calibration.py FOLDER`.

FOLDER is that of a `statesize study distillation`, made with `benchmarks/student_calibration.toml` for the constants of
the package. Prints the calibration, and how the errors of these students lie about it.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import cast

import numpy as np
import pandas as pd

from statesize.lab.studies.distillation import students_of
from statesize.lab.studies.engine.predictions import calibrate
from statesize.lab.studies.engine.table import Row


def main(folder: Path) -> None:
    """Prints the calibration of the students of a study."""
    frame = pd.read_parquet(folder / "table.parquet")
    students = students_of(cast("list[Row]", frame.to_dict(orient="records")))
    layers = [
        layer for student in students for layer in zip(student.teacher_ess, student.sizes, student.errors, strict=True)
    ]
    calibration = calibrate([ess for ess, _, _ in layers], [size for _, size, _ in layers], [e for *_, e in layers])
    print(calibration)
    ratios = [error / calibration.error(ess, size) for ess, size, error in layers]
    quantiles = ", ".join(f"{value:.2f}" for value in np.quantile(ratios, [0, 0.1, 0.5, 0.9, 1]))
    print(f"{len(layers)} layers of {len(students)} students; error / prediction at 0, 10, 50, 90, 100 %: {quantiles}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
