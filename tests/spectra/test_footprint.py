"""Engines hold about what they say they hold; measured in processes of their own."""

from functools import partial

import pytest

from benchmarks.cases import delta, gated, peak_bytes, selective, smooth_attention
from statesize.measurement.measurement import measure
from statesize.spectra.cut import make_cut
from statesize.spectra.dispatch import ENGINES

# What libraries and interpreter may take or keep on the side.
ASIDE = 12 * 2**20


def nothing(operator):
    pass


def ask(operator, engine):
    return measure(operator, (1e-3,), (1e-2,), engine=engine)


def warm(make, engine):
    ask(make(128), engine)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("engine", "make", "length"),
    [
        ("dense", partial(smooth_attention, width=16), 512),
        ("exact", partial(smooth_attention, width=64), 1024),
        ("exact", partial(gated, states=64), 1024),
        ("small_state", partial(selective, states=16, channels=128), 2048),
        ("all_cuts", partial(delta, states=64), 1024),
        ("all_cuts", partial(smooth_attention, width=64), 1024),
    ],
)
def test_the_estimate_bounds_what_is_held(engine, make, length):
    operator = make(length)
    each, shared = ENGINES[engine].footprint(operator, make_cut(length))
    calls = [nothing, partial(ask, engine=engine)]
    held, reached = peak_bytes(partial(make, length), calls, partial(warm, make, engine), threads=1)
    assert reached - held < 1.5 * operator.batch_shape.numel() * each + shared + ASIDE
