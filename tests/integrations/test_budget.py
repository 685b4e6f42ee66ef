"""How many heads fit into the time."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from statesize.integrations.probe import FEWEST_HEADS, MARGIN, Cost, affordable_heads

COSTS = st.builds(
    Cost,
    fixed=st.floats(0, 10),
    head=st.floats(0, 1),
    units=st.lists(st.integers(1, 200), min_size=1, max_size=8).map(tuple),
)


@given(COSTS, st.floats(0, 100))
def test_the_answer_fits_and_one_more_does_not(cost, seconds):
    heads = affordable_heads(cost, seconds)
    widest = max(cost.units)
    fewest = min(FEWEST_HEADS, widest)
    assert heads == 0 or fewest <= heads <= widest
    if heads:
        assert MARGIN * cost.seconds(heads) <= seconds
    if heads < widest:
        assert MARGIN * cost.seconds(max(heads + 1, fewest)) > seconds


@pytest.mark.parametrize(("units", "expected"), [((1,), 1), ((1, 1), 1), ((2, 7), 7)])
def test_with_all_the_time_every_head_is_measured(units, expected):
    assert affordable_heads(Cost(1.0, 1.0, units), 1e6) == expected


def test_debts_afford_nothing():
    assert affordable_heads(Cost(0.0, 1e-6, (8,)), -1.0) == 0
