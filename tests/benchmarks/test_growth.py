import math
from functools import partial

from benchmarks import engines as growth
from benchmarks.cases import gated
from statesize.measurement.measurement import measure
from statesize.spectra.dispatch import ENGINES


def test_every_engine_has_an_exponent():
    slopes = growth.exponents(quick=True)
    assert sorted(slopes) == sorted(ENGINES.keys() - {"implicit"})
    assert all(math.isfinite(slope) for slope in slopes.values())


def test_short_calls_are_repeated_and_long_ones_are_not(monkeypatch):
    measured = []

    def counted(operator, *arguments, **options):
        measured.append(operator.length)
        return measure(operator, *arguments, **options)

    monkeypatch.setattr(growth, "measure", counted)
    monkeypatch.setattr(growth, "_LENGTHS", (16, 32))
    monkeypatch.setattr(growth, "_OPERATORS", {"all_cuts": partial(gated, states=4)})
    assert list(growth.exponents(quick=False)) == ["all_cuts"]
    # The first call warms up.
    assert measured == [16, 16, 16, 16, 32, 32, 32]
    measured.clear()
    monkeypatch.setattr(growth, "_LONG", 0.0)
    growth.exponents(quick=False)
    assert measured == [16, 16, 32]
