"""Numbers in few characters."""

import numpy as np
import pytest
from report.unpacking import unpacked

from statesize.report.head_map import packed


def test_there_and_back():
    values = np.random.default_rng(0).uniform(0, 37, (3, 50))
    values[1, 4] = np.nan
    assert unpacked(packed(values)) == pytest.approx(values.ravel(), abs=37 / 65534 / 2 + 1e-9, nan_ok=True)


@pytest.mark.parametrize("values", [[], [0.0, 0.0], [np.nan]])
def test_nothing_and_zero(values):
    assert unpacked(packed(np.array(values))) == pytest.approx(values, nan_ok=True)
