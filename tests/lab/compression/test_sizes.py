"""Sizes of heads."""

import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from statesize.lab.compression.proposals import equal_sizes, sizes_by_cost


def test_equal_sizes_differ_by_one_at_most():
    assert equal_sizes(4, 10, 8) == [3, 3, 2, 2]
    assert equal_sizes(2, 16, 8) == [8, 8]


@given(st.lists(st.lists(st.floats(0, 9), min_size=5, max_size=5), min_size=2, max_size=3), st.data())
def test_convex_costs_get_the_sizes_of_least_sum(falls, data):
    # Savings that shrink are costs that are convex.
    costs = [np.concatenate([[0.0], -np.cumsum(sorted(fall, reverse=True))]) for fall in falls]
    total = data.draw(st.integers(len(costs), 5 * len(costs)))
    sizes = sizes_by_cost(costs, total)
    assert sum(sizes) == total
    assert all(1 <= size <= 5 for size in sizes)
    found = sum(cost[size] for cost, size in zip(costs, sizes, strict=True))
    every = itertools.product(range(1, 6), repeat=len(costs))
    best = min(sum(c[r] for c, r in zip(costs, rs, strict=True)) for rs in every if sum(rs) == total)
    assert abs(found - best) < 1e-9


def test_a_late_saving_counts_before_an_early_one_that_is_smaller():
    assert sizes_by_cost([np.array([9.0, 9, 9, 0]), np.array([9.0, 5, 4, 3])], 4) == [3, 1]
