"""Engines hold about what they say they hold; measured in processes of their own."""

from functools import partial

import pytest
import torch

from benchmarks.cases import delta, gated, peak_bytes, selective, smooth_attention
from statesize.measurement.measurement import measure
from statesize.spectra.cut import make_cut
from statesize.spectra.dispatch import ENGINES

LONG = 2**18
# What libraries and interpreter may take or keep on the side.
ASIDE = 12 * 2**20


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
    calls = [id, partial(ask, engine=engine)]  # the first does nothing
    held, reached = peak_bytes(partial(make, length), calls, partial(warm, make, engine), threads=1)
    assert reached - held < 1.5 * operator.batch_shape.numel() * each + shared + ASIDE


def single(length):
    return gated(length, 64).to(dtype=torch.float32)


def at_four(operator):
    return measure(operator, positions=4)


@pytest.mark.slow
def test_no_copy_of_a_long_recurrence_is_made():
    # So long that the stretch, whose size does not depend on the length, is the smaller part of what is allowed.
    held, reached = peak_bytes(partial(single, LONG), [id, at_four], partial(at_four, single(256)), 1)
    inputs = 3 * 64 * 4 * LONG
    assert held > 0.9 * inputs
    # Beside them a stretch; in float64 they would take twice as much as they do.
    assert reached - held < 0.5 * inputs
