"""Bases against the error that they claim, and against each other."""

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from statesize.reduction.bases import BalancedBasis, OrthonormalBasis, SelectedBasis


def gramians(seed, n=6):
    generator = torch.Generator().manual_seed(seed)
    factors = torch.randn(2, n, 2 * n, generator=generator, dtype=torch.float64)
    factors[1] *= torch.logspace(0, -1, n, dtype=torch.float64)[:, None]
    return factors @ factors.mT


def projection(basis, states, n=6):
    """The matrix that a cut puts in the place of the state."""
    cut = basis.cut(states)
    if cut.key_map is not None:
        return cut.query_map @ cut.key_map.mT
    found = torch.zeros(n, n, dtype=torch.float64)
    found[:, list(cut.channels[:states])] = cut.query_map
    return found


def missed(projection, reading, state):
    rest = torch.eye(len(state), dtype=torch.float64) - projection
    return float((reading * (rest @ state @ rest.mT)).sum() / (reading * state).sum())


@pytest.mark.parametrize("kind", [BalancedBasis, SelectedBasis])
@given(seed=st.integers(0, 1000))
def test_a_cut_misses_what_it_says(kind, seed):
    reading, state = gramians(seed)
    basis = kind.of(reading, state)
    for states in range(1, 7):
        error = missed(projection(basis, states), reading, state)
        assert error == pytest.approx(float(basis.error[states]), rel=1e-4, abs=1e-6)
    assert missed(projection(basis, 6), reading, state) < 1e-6


@given(seed=st.integers(0, 1000))
def test_an_orthonormal_basis_misses_no_more_than_it_says(seed):
    reading, state = gramians(seed)
    basis = OrthonormalBasis.of(reading, state)
    torch.testing.assert_close(basis.vectors.mT @ basis.vectors, torch.eye(6, dtype=torch.float64))
    assert bool((basis.error.diff() <= 0).all())
    found = [missed(projection(basis, states), reading, state) for states in range(7)]
    for states in range(7):
        assert max(found[states:]) == pytest.approx(float(basis.error[states]), abs=1e-9)


@given(seed=st.integers(0, 1000))
def test_no_projection_misses_less_than_the_balanced_one(seed):
    reading, state = gramians(seed)
    balanced, selected = BalancedBasis.of(reading, state), SelectedBasis.of(reading, state)
    assert bool((balanced.error <= selected.error + 1e-9).all())
    for states in (1, 3):
        tried = torch.randn(2, 6, states, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        other = tried[0] @ torch.linalg.inv(tried[1].mT @ tried[0]) @ tried[1].mT
        assert missed(other, reading, state) >= float(balanced.error[states])


def test_the_greedy_choice_is_the_best_single_one_and_near_the_best_pair():
    reading, state = gramians(3)
    basis = SelectedBasis.of(reading, state)

    def error(kept):
        rows = state[list(kept)]
        solved = torch.linalg.solve(rows[:, list(kept)], rows)
        return float((reading * (state - rows.mT @ solved)).sum() / (reading * state).sum())

    assert float(basis.error[1]) == pytest.approx(min(error([one]) for one in range(6)))
    best = min(error(pair) for pair in itertools.combinations(range(6), 2))
    assert best <= float(basis.error[2]) + 1e-12 <= 1.5 * best
