"""Engines hold about what they say they hold; measured in processes of their own."""

from functools import partial

import pytest
import torch

from benchmarks.cases import (
    attention,
    delta,
    full,
    gated,
    modal_convolution,
    peak_bytes,
    selective,
    smooth_attention,
)
from statesize.measurement.measurement import measure
from statesize.operators import Convolution, Recurrence, SoftmaxAttention
from statesize.operators.transition import DeltaTransition
from statesize.spectra.cut import make_cut
from statesize.spectra.dispatch import ENGINES

# What libraries and interpreter may take or keep on the side.
ASIDE = 12 * 2**20


def complex_modes(length, states):
    g = torch.Generator().manual_seed(0)
    normal = partial(torch.randn, length, states, generator=g, dtype=torch.float64)
    return Recurrence(torch.polar(normal().sigmoid() ** 0.2, normal()), normal(), normal())


def heads(make, length, count):
    one = make(length)

    def repeated(part):
        return part.repeat(count, *(1,) * part.ndim)

    if isinstance(one, Convolution):
        return Convolution(repeated(one.kernel), length)
    if isinstance(one, SoftmaxAttention):
        return SoftmaxAttention(repeated(one.query), repeated(one.key), one.scale)
    if one.batch_shape:
        return one
    if isinstance(one.transition, DeltaTransition):
        delta = one.transition
        return Recurrence.delta_rule(*map(repeated, (delta.key, delta.beta[..., 0], one.C, delta.decay)))
    return Recurrence(*map(repeated, (one.A, one.B, one.C)))


def nothing(operator):
    pass


def ask(operator, engine, outputs, budget=2**50):
    return measure(operator, (1e-3,), (1e-2,), outputs=outputs, engine=engine, memory=budget)


def warm(make, engine, outputs):
    ask(heads(make, 128, 2), engine, outputs)


def peak(make, length, count, engine, outputs=("counts", "entropy"), **options):
    call = partial(ask, engine=engine, outputs=outputs, **options)
    built = partial(heads, make, length, count)
    held, reached = peak_bytes(built, [nothing, call], partial(warm, make, engine, outputs), threads=1)
    return reached - held


@pytest.mark.slow
@pytest.mark.parametrize(
    ("engine", "make", "length", "count"),
    [
        ("dense", partial(attention, width=16), 256, 4),
        ("exact", partial(attention, width=16), 256, 4),
        ("exact", partial(attention, width=64), 1024, 1),
        ("square_root", partial(gated, states=16), 2048, 4),
        ("square_root", partial(gated, states=64), 512, 4),
        ("square_root", partial(complex_modes, states=16), 512, 4),
        ("small_state", partial(selective, states=16, channels=128), 2048, 128),
        ("small_state", partial(selective, states=4, channels=128), 2048, 128),
        ("small_state", partial(selective, states=32, channels=32), 1024, 32),
        ("chunked", partial(gated, states=16), 4096, 8),
        ("chunked", partial(gated, states=64), 2048, 8),
        ("chunked", partial(gated, states=128), 2048, 4),
        ("chunked", partial(delta, states=64), 2048, 4),
        ("chunked", partial(full, states=32), 2048, 4),
        ("chunked", partial(complex_modes, states=16), 2048, 4),
        ("streaming", partial(smooth_attention, width=64), 2048, 4),
        ("streaming", partial(modal_convolution, modes=32), 2048, 4),
        ("tridiagonal", partial(attention, width=64), 512, 4),
        ("tridiagonal", partial(attention, width=64), 1024, 1),
    ],
)
def test_the_estimate_bounds_what_is_held(engine, make, length, count):
    operator, cut = heads(make, length, count), make_cut(length)
    each, shared = ENGINES[engine].footprint(operator, cut)
    estimate = count * each
    most = 1.5 * estimate + shared + ASIDE
    measured = peak(make, length, count, engine)
    assert measured < most
    assert measured > estimate / 3 - ASIDE


@pytest.mark.slow
@pytest.mark.parametrize(
    ("engine", "make", "length", "count"),
    [
        ("chunked", partial(gated, states=64), 1024, 64),
        ("square_root", partial(gated, states=16), 1024, 64),
        ("small_state", partial(selective, states=16, channels=1024), 1024, 1024),
        ("tridiagonal", partial(attention, width=64), 256, 256),
    ],
)
def test_many_heads_stay_within_the_budget(engine, make, length, count):
    # Large enough for tensors that the C library gives back to the system at once, as those of the real budget are.
    budget = 2**28
    assert count * ENGINES[engine].footprint(heads(make, length, 1), make_cut(length)).each > 2 * budget
    assert peak(make, length, count, engine, ("counts",), budget=budget) < 1.5 * budget + ASIDE
