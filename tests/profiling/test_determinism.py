"""The same again gives the same bits; other numbers of threads and of processes give the same within the bounds."""

import functools

import numpy as np
import pytest
import torch
from oracles.profiles import same

import experiments.variation.mixers  # noqa: F401
from statesize.lab.mixers import LanguageModel, ModelConfig
from statesize.profiling import profile
from statesize.results.fields import COUNTS

PATTERNS = ("sa,gla", "s6,la", "s4d,deltanet", "gla-s6,wla")


def measured(pattern, threads, **options):
    config = ModelConfig(pattern, vocabulary_size=64, width=16, heads=2, layers=2, key_size=8)
    model = LanguageModel(config, torch.Generator().manual_seed(1)).eval()
    ids = torch.randint(64, (1, 40), generator=torch.Generator().manual_seed(2))
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        return profile(model, ids, **options)
    finally:
        torch.set_num_threads(before)


def assert_within_bounds(one, other):
    """Numbers differ by no more than both results state, and than rounding on other threads makes them."""
    assert one.mixers == other.mixers
    for name in one.mixers:
        first, second = one.mixer(name), other.mixer(name)
        allowed = first["entropy_bound"] + second["entropy_bound"] + 1e-4 * first["entropy"]
        assert bool((abs(first["entropy"] - second["entropy"]).fillna(0) <= allowed.fillna(0)).all())
        assert bool((abs(first["norm"] - second["norm"]).fillna(0) <= 5e-6 * first["norm"].fillna(0)).all())
        for counts in COUNTS:
            lowest = np.maximum(first[counts.lower], second[counts.lower])
            assert bool((lowest <= np.minimum(first[counts.upper], second[counts.upper])).all())


@functools.cache
def first(pattern, threads=1):
    """What the others are compared with."""
    return measured(pattern, threads)


@pytest.mark.few(2)
@pytest.mark.parametrize(
    ("pattern", "threads"),
    [
        *((pattern, 1) for pattern in PATTERNS),
        *(pytest.param(pattern, 2, marks=pytest.mark.slow) for pattern in PATTERNS[:2]),
    ],
)
def test_a_profile_has_the_same_bits_again(pattern, threads):
    assert same(first(pattern, threads), measured(pattern, threads))


@pytest.mark.few(2)
@pytest.mark.parametrize("pattern", PATTERNS)
def test_other_threads_give_a_profile_within_the_bounds(pattern):
    for other in (first(pattern, 2), measured(pattern, 3)):
        assert_within_bounds(first(pattern), other)
