"""Training settings: what is refused, and the rate schedule."""

import itertools
import math

import pytest

from statesize.errors import InputError
from statesize.lab.training import TrainingConfig


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"batch_size": 0}, "batch_size must be a whole number of at least 1, got 0"),
        ({"rate": 0.0}, r"rate must be .*got 0\.0"),
        ({"warm_up": 2.0}, r"warm_up must be .*got 2\.0"),
        ({"weight_decay": -0.1}, r"weight_decay must be .*got -0\.1"),
        ({"seed": -1}, "seed must be a whole number of at least 0, got -1"),
        ({"device": 0}, "device must be the name of a torch device such as 'cpu', got 0"),
    ],
)
def test_bad_values_are_refused_and_quoted(changes, said):
    with pytest.raises(InputError, match=said):
        TrainingConfig(**changes)


def test_the_rate_rises_linearly_and_falls_along_a_cosine():
    config = TrainingConfig(steps=99, rate=1.0, warm_up=20 / 99)
    rates = [config.rate_at(step) for step in range(1, 100)]
    assert rates[:20] == pytest.approx([step / 20 for step in range(1, 21)])
    assert rates[59] == pytest.approx(0.5)
    assert all(earlier > later > 0 for earlier, later in itertools.pairwise(rates[19:]))
    assert rates[-1] < 1e-3


def test_no_warm_up_starts_below_the_peak_only_by_the_cosine():
    assert TrainingConfig(steps=10, rate=1.0, warm_up=0.0).rate_at(1) == pytest.approx(
        0.5 * (1 + math.cos(math.pi / 11))
    )
