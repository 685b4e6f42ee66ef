import numba
import numpy as np
import pytest
from numba.core.errors import TypingError

from statesize.spectra.lanes.vectors import (
    any_positive,
    exponent,
    lane_functions,
    lane_sum,
    mantissa,
    square_root,
    store,
    where_positive,
)

load8, splat8, splat8_at = lane_functions(8)
load32, splat32, _ = lane_functions(32)


@numba.njit(error_model="numpy")
def narrow(x, y, results):
    a, b = load8(x, 0), load8(y, 1)
    store(results, 0, a + b)
    store(results, 1, a - b)
    store(results, 2, a * b)
    store(results, 3, a / b)
    store(results, 4, square_root(b))
    store(results, 5, where_positive(a, b, splat8(7.0)))
    store(results, 6, splat8_at(y, 3))
    return any_positive(a), any_positive(a - splat8(100.0))


@numba.njit(error_model="numpy")
def wide(x, times):
    total = splat32(0.0)
    for _ in range(times):
        total = total + load32(x, 1) * splat32(0.5)
    store(x, 0, total)


@numba.njit(error_model="numpy")
def joined(x):
    return lane_sum(load8(x, 0)), lane_sum(load32(x, 0))


@numba.njit(error_model="numpy")
def split(x, results):
    store(results, 0, mantissa(load8(x, 0)))
    store(results, 1, exponent(load8(x, 0)))


def test_all_lanes_add_up():
    x = np.arange(1.0, 33.0) ** 2
    assert joined(x) == (x[:8].sum(), x.sum())


def test_mantissa_and_exponent():
    x, results = np.array([1.0, -3.0, 1e300, -1e-300, 2.0**-1022, 0.1, 4.0, 1.5]), np.zeros(16)
    split(x, results)
    m, e = np.frexp(np.abs(x))
    np.testing.assert_array_equal(results[:8], 2 * m)
    np.testing.assert_array_equal(results[8:], e - 1)


def test_exponents_of_what_has_no_logarithm():
    x, results = np.array([0.0, np.inf, -np.inf, np.nan, 5e-324, -0.0, 1.0, 1.0]), np.zeros(16)
    split(x, results)
    np.testing.assert_array_equal(results[8:14], [-1023, 1024, 1024, 1024, -1023, -1023])


def test_each_lane_by_itself():
    rng = np.random.default_rng(0)
    x, y, results = rng.standard_normal(8), rng.random(16) + 0.1, np.zeros(56)
    x[3] = np.nan
    assert narrow(x, y, results) == (True, False)
    b, found = y[8:], results.reshape(7, 8)
    for row, expected in enumerate((x + b, x - b, x * b, x / b, np.sqrt(b), np.where(x > 0, b, 7.0), np.full(8, y[3]))):
        np.testing.assert_array_equal(found[row], expected)


def test_wider_than_the_registers():
    x = np.arange(64.0)
    wide(x, 3)
    np.testing.assert_array_equal(x, np.concatenate([1.5 * np.arange(32.0, 64.0), np.arange(32.0, 64.0)]))


def test_lanes_of_different_width_do_not_mix():
    @numba.njit(error_model="numpy")
    def mixed(x):
        store(x, 0, load8(x, 0) + load32(x, 0))

    with pytest.raises(TypingError, match="No implementation of function"):
        mixed(np.zeros(64))
