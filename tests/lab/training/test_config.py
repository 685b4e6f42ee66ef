"""Training settings: what is refused, and the rate schedule."""

import itertools
import math

import pytest

from statesize.lab.training import TrainingConfig


def test_the_rate_rises_linearly_and_falls_along_a_cosine():
    config = TrainingConfig(steps=99, rate=1.0, warm_up=20 / 99)
    rates = [config.rate_at(step) for step in range(1, 100)]
    assert rates[:20] == pytest.approx([step / 20 for step in range(1, 21)])
    assert rates[59] == pytest.approx(0.5)
    assert all(earlier > later > 0 for earlier, later in itertools.pairwise(rates[19:]))
    assert rates[-1] < 1e-3
    # Without a warm-up, only the cosine is below the peak.
    first = TrainingConfig(steps=10, rate=1.0, warm_up=0.0).rate_at(1)
    assert first == pytest.approx(0.5 * (1 + math.cos(math.pi / 11)))
