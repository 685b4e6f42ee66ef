"""Exponents of curves that are known."""

import math

import numpy as np
import pytest
from scipy import stats

from statesize.lab.trends.growth import exponent_of

LENGTHS = (16, 32, 64, 128)
N = np.array(LENGTHS, float)
JITTER = np.array([0.98, 0.99, 1.0, 1.01, 1.02])
HIGH = np.full(4, 1e6)


def exponent(curve, ceilings=HIGH, texts=range(5)):
    return exponent_of(LENGTHS[: len(curve)], np.array(curve)[:, None] * JITTER, ceilings[: len(curve)], texts)


@pytest.mark.parametrize("power", [0.5, 1.0, -0.2])
def test_the_exponent_of_a_power_law_is_its_power(power):
    found = exponent(3 * N**power)
    assert found.shape == "power law"
    for interval in (found.fitted, found.last):
        assert [interval.value, interval.low, interval.high] == pytest.approx([power] * 3)


def test_the_interval_is_student_s_t_over_the_slopes_of_texts():
    noise = np.exp(0.02 * np.random.default_rng(0).standard_normal((4, 5)))
    ess = 3 * N[:, None] ** 0.5 * noise
    slopes = [np.polyfit(np.log(N), np.log(column), 1)[0] for column in ess.T]
    fitted = exponent_of(LENGTHS, ess, HIGH, range(5)).fitted
    assert fitted.value == pytest.approx(np.mean(slopes))
    assert (fitted.low, fitted.high) == pytest.approx(stats.t.interval(0.95, 4, np.mean(slopes), stats.sem(slopes)))


@pytest.mark.parametrize(
    ("curve", "shape"),
    [(N / (N + 40), "slows down"), (1 - np.exp(-N / 40), "slows down"), (np.minimum(N, 40), "saturates")],
)
def test_a_curve_that_saturates_has_no_exponent(curve, shape):
    assert exponent(curve).shape == str(exponent(curve)) == shape


def test_near_its_ceiling_growth_is_that_of_the_ceiling():
    assert exponent(0.9 * N**0.5, N**0.5).shape == "near its ceiling"
    assert exponent(0.5 * N**0.5, N**0.5).shape == "power law"


def test_an_exponent_takes_three_lengths_and_five_texts():
    two = exponent(N[:2])
    assert (two.shape, math.isnan(two.fitted.value)) == ("too few lengths", True)
    pieces_of_four = exponent(N, texts=(0, 0, 1, 2, 3))
    assert (pieces_of_four.shape, pieces_of_four.fitted.value) == ("too few texts", pytest.approx(1))
    assert pieces_of_four.to_dict()["exponent_interval"] is None


def test_a_flat_end_saturates_only_where_its_interval_leaves_no_doubt():
    ess = np.minimum(N, 40)[:, None] * JITTER
    ess[-1] *= [0.8, 1.2, 1.0, 0.9, 1.1]
    found = exponent_of(LENGTHS, ess, HIGH, range(5))
    assert found.last.low < 0.1 < found.last.high
    assert found.shape == "slows down"
