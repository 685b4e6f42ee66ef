"""The calibration of students covers what it says."""

import numpy as np
import pytest

from benchmarks.student_calibration import calibrate


def made_up_students(count, seed, noise=0.2):
    generator = np.random.default_rng(seed)
    ess, sizes = generator.uniform(1, 8, count), generator.choice([2, 4, 8], count)
    return ess, sizes, 0.1 * ess**0.9 * sizes**-0.5 * np.exp(noise * generator.normal(size=count))


def test_the_calibration_covers_nine_of_ten():
    known = calibrate(*made_up_students(200, 0))
    assert known.ess_power == pytest.approx(0.9, abs=0.1)
    assert known.size_power == pytest.approx(-0.5, abs=0.1)
    ess, sizes, errors = made_up_students(5000, 1)
    below = [error <= known.error(e, int(n)) for e, n, error in zip(ess, sizes, errors, strict=True)]
    assert np.mean(below) == pytest.approx(0.9, abs=0.04)
