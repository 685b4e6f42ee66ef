import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from oracles.recurrences import STRUCTURES, random_recurrence

from statesize.bands import shared_bounds, spread_bounds
from statesize.operators import Dense
from statesize.spectra.cut import make_cut

TAU = torch.tensor([1.0, 0.1, 1e-4], dtype=torch.float64)
UNKNOWN = 10**6


def counts(operator, past, future):
    """ν at all positions from the definition, (P, K)."""
    matrix, cut = operator.dense(), make_cut(operator.length, None, past, future)
    return torch.stack([(torch.linalg.svdvals(cut.block(matrix, i))[:, None] > TAU).sum(0) for i in cut.positions])


@given(st.sampled_from(STRUCTURES), st.integers(0, 2**31), st.integers(2, 24), st.integers(1, 9), st.data())
def test_what_some_positions_say_about_all(structure: str, seed: int, length: int, states: int, data) -> None:
    operator = random_recurrence(structure, seed, length, states)
    past = data.draw(st.none() | st.integers(1, length - 1))
    future = data.draw(st.none() | st.integers(1, length - (past or 1)))
    cut, true = make_cut(length, None, past, future), counts(operator, past, future)
    known = sorted(data.draw(st.sets(st.integers(0, len(cut.positions) - 1), min_size=1)))
    lower, upper = torch.zeros_like(true), torch.full_like(true, UNKNOWN)
    lower[known], upper[known] = true[known], true[known]
    least, most = spread_bounds(cut, lower, upper)
    assert bool((least <= true).all())
    assert bool((true <= most).all())
    assert torch.equal(least[known], true[known])
    assert torch.equal(most[known], true[known])
    some = make_cut(length, [cut.positions[place] for place in known], past, future)
    least, most = shared_bounds(operator, some, TAU)
    between = true[known[0] : known[-1] + 1]
    assert bool((least <= between).all())
    assert bool((between <= most).all())


@pytest.mark.parametrize(
    ("past", "future", "rise", "fall"), [(None, None, 1, 1), (2, None, 1, 2), (None, 2, 2, 1), (2, 2, 2, 2)]
)
def test_steps_are_as_steep_as_windows_allow(past: int | None, future: int | None, rise: int, fall: int) -> None:
    cut = make_cut(12, None, past, future)
    P = len(cut.positions)
    lower, upper = torch.zeros(P, 1, dtype=torch.int64), torch.full((P, 1), UNKNOWN)
    lower[P // 2], upper[P // 2] = 9, 11
    least, most = (part.squeeze(-1).tolist() for part in spread_bounds(cut, lower, upper))
    for place in range(P):
        after, before = max(0, place - P // 2), max(0, P // 2 - place)
        assert least[place] == max(0, 9 - fall * after - rise * before)
        assert most[place] == 11 + rise * after + fall * before


@pytest.mark.parametrize(("past", "future", "change"), [(None, None, 1), (3, None, -2), (None, 3, 2), (3, 3, 2)])
def test_operators_that_change_as_fast_as_they_can(past: int | None, future: int | None, change: int) -> None:
    # An anti-diagonal reaches from inputs near position 8 to outputs near it: all of them at 8, none far away.
    matrix = torch.zeros(16, 16, dtype=torch.float64)
    matrix[torch.arange(8, 16), torch.arange(7, -1, -1)] = 2.0
    true = counts(Dense(matrix), past, future)[:, 0]
    assert change in true.diff().tolist()


def test_core_and_hull_bound_a_full_state_from_both_sides() -> None:
    operator = random_recurrence("orthogonal", 0, 60, 4)
    cut = make_cut(60, [20, 40])
    least, most = shared_bounds(operator, cut, TAU[2:])
    assert least[1:-1].unique().tolist() == [4]
    assert int(most[1:-1].max()) <= 4 + 20
    average = Dense(torch.ones(60, 60, dtype=torch.float64).tril() / 60)
    _, most = shared_bounds(average, make_cut(60, [20, 30]), TAU[1:2])
    assert most[1:-1].unique().tolist() == [1]


def test_batch_entries_and_too_few_positions() -> None:
    operator = random_recurrence("diagonal", 1, 20, 3, batch=(2, 3))
    cut = make_cut(20, [3, 9, 15])
    least, most = shared_bounds(operator, cut, TAU)
    one_least, one_most = shared_bounds(operator[1, 2], cut, TAU)
    assert torch.equal(least[1, 2], one_least)
    assert torch.equal(most[1, 2], one_most)
    assert shared_bounds(operator, make_cut(20, []), TAU)[0].shape == (2, 3, 0, 3)
    assert shared_bounds(operator[:0], cut, TAU)[0].shape == (0, 3, 13, 3)
