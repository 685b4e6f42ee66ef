"""Constants of `GLA_STUDENTS`: `python benchmarks/student_calibration.py FOLDER`.

FOLDER is that of a `statesize study distillation`, made with `benchmarks/student_calibration.toml` for the constants of
the package. Prints the calibration, and how the errors of these students lie about it.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from statesize.lab.studies.distillation import students_of
from statesize.lab.studies.engine.students import Calibration
from statesize.lab.studies.engine.table import Row

_COVERAGE = 0.9


def calibrate(ess: Sequence[float], sizes: Sequence[int], errors: Sequence[float]) -> Calibration:
    """Fits a calibration to some students.

    A regression of ln error on ln ESS and ln n; the factor is then raised until 90 % of these students lie below (split
    conformal prediction takes the same quantile; Lei et al. 2018).

    Args:
        ess: Average entropy-ESS of each student's teacher layer.
        sizes: n of each.
        errors: Operator error of each.

    Returns:
        The calibration.
    """
    values = np.log([list(ess), list(sizes), list(errors)])
    regressors = np.stack([np.ones(values.shape[1]), *values[:2]], -1)
    fitted: NDArray[np.float64] = cast("Any", np.linalg).lstsq(regressors, values[2])[0]
    residuals = np.sort(values[2] - regressors @ fitted)
    rank = math.ceil((len(residuals) + 1) * _COVERAGE)
    return Calibration(math.exp(fitted[0] + residuals[rank - 1]), float(fitted[1]), float(fitted[2]))


def main(folder: Path) -> None:
    """Prints the calibration of the students of a study."""
    frame = pd.read_parquet(folder / "table.parquet")
    students = students_of(cast("list[Row]", frame.to_dict(orient="records")))
    layers = [
        (ess, student.size, error)
        for student in students
        for ess, error in zip(student.teacher_ess, student.errors, strict=True)
    ]
    calibration = calibrate([ess for ess, _, _ in layers], [size for _, size, _ in layers], [e for *_, e in layers])
    print(calibration)
    ratios = [error / calibration.error(ess, size) for ess, size, error in layers]
    quantiles = ", ".join(f"{value:.2f}" for value in np.quantile(ratios, [0, 0.1, 0.5, 0.9, 1]))
    print(f"{len(layers)} layers of {len(students)} students; error / prediction at 0, 10, 50, 90, 100 %: {quantiles}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
