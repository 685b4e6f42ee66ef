"""Sampled heads: what is drawn, and how often the interval holds the truth."""

import math

import numpy as np
import pytest
from scipy import stats

from statesize.measurement.statistics import (
    Interval,
    Sample,
    above_zero,
    draw,
    estimate,
    mean_interval,
    position_error,
    ratio_interval,
    student_t,
    too_short,
)

# From tables: t at a probability of 0.975 on one side.
TABLE = {1: 12.706205, 2: 4.302653, 3: 3.182446, 4: 2.776445, 7: 2.364624, 30: 2.042272, 120: 1.979930}


@pytest.mark.parametrize("freedom", TABLE)
def test_student_t(freedom):
    assert student_t(freedom) == pytest.approx(TABLE[freedom], abs=1e-6)


@pytest.mark.parametrize(("total", "count"), [(10, 1), (10, 2), (10, 3), (10, 9), (10, 10), (8192, 64), (7, 5), (3, 9)])
def test_each_stratum_gives_its_share(total, count):
    sample = draw(total, count, 0, "layer")
    assert len(sample.units) == len(np.unique(sample.units)) == min(total, count)
    assert sample.total == total
    assert (np.diff(sample.units) > 0).all()
    starts = np.cumsum(sample.sizes) - sample.sizes
    for stratum, (start, size) in enumerate(zip(starts, sample.sizes, strict=True)):
        inside = sample.units[sample.strata == stratum]
        assert ((start <= inside) & (inside < start + size)).all()
        # One unit alone has no spread, unless a single one is asked for.
        assert len(inside) >= min(2, count)


def test_the_seed_and_the_name_decide():
    units = draw(1000, 20, 3, "layer").units
    np.testing.assert_array_equal(units, draw(1000, 20, 3, "layer").units)
    assert (units != draw(1000, 20, 4, "layer").units).any()
    assert (units != draw(1000, 20, 3, "other").units).any()


@pytest.mark.few(1)
@pytest.mark.parametrize(("total", "count"), [(40, 8), (101, 9), (32, 4)])
def test_the_interval_holds_the_truth_in_95_of_100(total, count):
    generator = np.random.default_rng(0)
    # Units change along the layer, as heads of a group do: this is what strata are for.
    values = generator.normal(size=total) + np.linspace(0, 4, total)
    estimates = [estimate(values[sample.units], sample) for sample in (draw(total, count, k, "") for k in range(2000))]
    inside = np.mean([abs(item.mean - values.mean()) <= item.error for item in estimates])
    assert 0.915 <= inside <= 0.98
    # Unbiased: the mean of 2000 estimates is the mean of the layer, but for its own error.
    spread = np.std([item.mean for item in estimates]) / math.sqrt(2000)
    assert abs(np.mean([item.mean for item in estimates]) - values.mean()) < 4 * spread


def test_the_formula():
    # Strata of 4 and 6 units, of which 2 and 3 are measured.
    sample = Sample(np.arange(5), np.array([0, 0, 1, 1, 1]), np.array([4, 6]))
    found = estimate(np.array([1.0, 3.0, 5.0, 6.0, 10.0]), sample)
    assert found.mean == pytest.approx(0.4 * 2 + 0.6 * 7)
    variance = 0.4**2 * (1 - 2 / 4) * 2 / 2 + 0.6**2 * (1 - 3 / 6) * 7 / 3
    assert found.error == pytest.approx(math.sqrt(variance) * TABLE[3], rel=1e-6)


def test_one_of_several_has_no_interval_and_all_have_no_error():
    alone = estimate(np.array([2.0]), draw(5, 1, 0, ""))
    assert alone.mean == 2.0
    assert math.isnan(alone.error)
    assert estimate(np.array([2.0, 4.0]), draw(2, 2, 0, "")).error == 0.0
    assert math.isnan(estimate(np.array([np.nan, 1.0]), draw(2, 2, 0, "")).mean)


def test_the_formula_of_positions():
    # Three of ten, and the sum of squares of what successive ones differ by.
    variance = (1 - 3 / 10) * (4**2 + 1**2) / (2 * 3 * 2)
    found = position_error(np.array([1.0, 5.0, 4.0]), np.array([2, 5, 8]), 10)
    assert found == pytest.approx(math.sqrt(variance) * TABLE[2], rel=1e-6)


def test_all_positions_leave_nothing_to_chance():
    assert position_error(np.arange(4) ** 2.0, np.array([4, 5, 6, 7]), 4) == 0
    assert position_error(np.ones(1), np.array([1]), 1) == 0


@pytest.mark.parametrize("positions", [[2, 4, 9, 10], [5, 15, 24, 35], [3, 9], [3], [2, 3, 4], [4, 6, 8, 10]])
def test_uneven_and_few_positions_and_those_of_a_part_have_no_interval(positions):
    assert math.isnan(position_error(np.arange(len(positions)) ** 2.0, np.array(positions), 40))


def test_an_interval_of_what_cannot_be_negative_is_that_of_the_logarithm():
    values = np.array([0.1, 0.2, 0.1, 3.0, 0.2])
    plain = mean_interval(values)
    found = above_zero(plain)
    assert plain.low < 0 < found.low < found.value == plain.value
    half = stats.t.ppf(0.975, 4) * stats.sem(values) / values.mean()
    assert np.log([found.value / found.low, found.high / found.value]) == pytest.approx([half, half])
    # No bolder than before in what it says at most.
    assert found.high > plain.high
    assert above_zero(mean_interval(np.zeros(5))).ends == [0, 0]
    assert above_zero(mean_interval(values[:4])).ends is None
    # A mean that rounding left near 0, of values of both signs.
    assert above_zero(Interval(1e-18, -1e-9, 1e-9)).low >= 0
    nothing = above_zero(mean_interval(np.array([3e-9, -2e-9, 1e-9, -4e-9, 3e-9])))
    assert (nothing.low, nothing.high < 1e-8) == (0, True)


def test_pieces_of_a_text_are_one_unit_of_an_interval():
    generator = np.random.default_rng(0)
    values, sizes, texts = generator.random(12), 1 + generator.random(12), [9, 9, 9, 4, 4, 4, 4, 7, 7, 5, 6, 6]
    # The sums over each text, and the error of a ratio of sums.
    amounts, weights = (
        [sum(part[n] for n in range(12) if texts[n] == text) for text in (9, 4, 7, 5, 6)] for part in (values, sizes)
    )
    counts = [3, 4, 2, 1, 2]
    for found, above, below in (
        (ratio_interval(values, sizes, texts), amounts, weights),
        (mean_interval(values, texts), amounts, counts),
    ):
        value = sum(above) / sum(below)
        rest = [one - value * other for one, other in zip(above, below, strict=True)]
        half = stats.t.ppf(0.975, 4) * np.sqrt(5 / 4 * sum(one**2 for one in rest)) / sum(below)
        assert (found.value, found.low, found.high) == pytest.approx((value, value - half, value + half))
    # Three looks share the 5 %.
    plain, wider = mean_interval(values), mean_interval(values, looks=3)
    ratio = stats.t.ppf(1 - 0.025 / 3, 11) / stats.t.ppf(0.975, 11)
    assert wider.high - wider.value == pytest.approx(ratio * (plain.high - plain.value))
    assert mean_interval(values, [1] * 12).ends is None
    assert mean_interval(values, range(12)) == mean_interval(values)


def test_ends_that_would_read_alike_get_one_more_digit():
    assert f"{Interval(0.0011, 0.0009, 0.0012):.1%}" == "0.11% [0.09%, 0.12%]"
    assert f"{Interval(0.02, 0.02, 0.02):+.1f}" == "+0.0 [+0.0, +0.0]"
    assert f"{Interval(-1e-9, -0.2, 0.1):+.1f}" == "+0.0 [-0.2, +0.1]"


def test_little_text_is_told_up_to_its_limit():
    assert too_short(16) == ""
    assert too_short(15).endswith("fewer than 16 tokens bound what can pass, whatever the model. Give 64 or more.")
