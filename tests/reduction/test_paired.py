"""Ratios over documents with intervals."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from statesize.reduction.windows import ratio_of


def test_of_equal_sizes_it_is_student_s_interval_of_a_mean():
    values = torch.tensor(np.random.default_rng(0).normal(size=12))
    found = ratio_of(values, torch.ones(12))
    low, high = stats.t.interval(0.95, 11, values.mean(), stats.sem(values))
    assert (found.value, found.low, found.high) == pytest.approx((float(values.mean()), low, high))


def test_intervals_hold_the_ratio_as_often_as_they_say():
    generator = np.random.default_rng(1)
    held = 0
    for _ in range(1000):
        sizes = generator.integers(50, 400, 40)
        amounts = 1.5 * sizes + generator.normal(size=40) * sizes**0.5
        found = ratio_of(torch.tensor(amounts), torch.tensor(sizes))
        held += found.low <= 1.5 <= found.high
    assert 925 <= held <= 975


def test_documents_without_a_size_do_not_count():
    found = ratio_of(torch.tensor([1.0, 0.0, 3.0]), torch.tensor([1.0, 0.0, 1.0]))
    assert found == ratio_of(torch.tensor([1.0, 3.0]), torch.tensor([1.0, 1.0]))
    assert math.isnan(ratio_of(torch.zeros(2), torch.zeros(2)).value)
