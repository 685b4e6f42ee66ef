"""Draws without replacement: different, uniform on both ways of drawing, and the caller's settings left alone."""

import itertools

import pytest
import torch

from statesize.lab.tasks.synthetic import distinct, race


@pytest.mark.parametrize(("count", "draws"), [(5, 5), (5, 3), (9, 3), (1000, 30), (1, 1)])
def test_draws_are_different_and_in_range(count, draws):
    numbers = distinct(count, draws, 500, torch.Generator().manual_seed(0))
    assert numbers.shape == (500, draws)
    assert all(len(set(row)) == draws for row in numbers.tolist())
    assert numbers.min() >= 0
    assert numbers.max() < count


# Three of five go by sorting, two of five by rejection.
@pytest.mark.parametrize(("count", "draws"), [(5, 3), (5, 2)])
def test_every_ordered_choice_is_as_likely(count, draws):
    rows = 60_000
    numbers = distinct(count, draws, rows, torch.Generator().manual_seed(1))
    choices = list(itertools.permutations(range(count), draws))
    place = {choice: number for number, choice in enumerate(choices)}
    drawn = torch.tensor([place[tuple(row)] for row in numbers.tolist()])
    share = torch.bincount(drawn, minlength=len(choices)) / rows
    assert (share - 1 / len(choices)).abs().max() < 4 * (1 / len(choices) / rows) ** 0.5


def test_race_stays_right_where_weights_leave_the_range_of_floats():
    log_weights = torch.tensor([0.0, 2000.0, -2000.0, 1000.0], dtype=torch.float64)
    assert (race(log_weights, 3, 50, torch.Generator().manual_seed(2)) == torch.tensor([0, 1, 3])).all()


def test_draws_do_not_depend_on_the_default_dtype_and_leave_the_global_generator_alone():
    def draw():
        generator = torch.Generator().manual_seed(3)
        return [
            distinct(6, 4, 9, generator),
            distinct(60, 4, 9, generator),
            race(torch.zeros(7).double(), 3, 9, generator),
        ]

    state, dtype, expected = torch.get_rng_state(), torch.get_default_dtype(), draw()
    try:
        torch.set_default_dtype(torch.float64)
        again = draw()
    finally:
        torch.set_default_dtype(dtype)
    assert all(one.equal(other) for one, other in zip(expected, again, strict=True))
    assert torch.get_rng_state().equal(state)
