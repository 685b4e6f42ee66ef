import math

from statesize.benchmarks import growth
from statesize.spectra.engine import ENGINES


def test_every_engine_has_an_exponent():
    slopes = growth.exponents(quick=True)
    assert sorted(slopes) == sorted(ENGINES)
    assert all(math.isfinite(slope) for slope in slopes.values())
