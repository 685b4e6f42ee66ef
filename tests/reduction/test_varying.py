"""Realisations that vary along the sequence have just the state that T carries, at every position."""

import pytest
import torch
from oracles.operators import STRUCTURES, random_recurrence

from statesize.errors import InputError
from statesize.measurement.measurement import hankel_singular_values, measure
from statesize.operators import Convolution, Recurrence
from statesize.reduction.reduce import reduce


def distance(one, other):
    return torch.linalg.matrix_norm(one.dense() - other.dense(), 2)


@pytest.mark.few(10)
@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize(("length", "states"), [(2, 1), (3, 5), (24, 3), (30, 5)])
def test_equal_with_as_many_states_as_the_ess_at_every_position(structure, length, states):
    recurrence = random_recurrence(structure, 0, length, states, batch=(2, 3))
    found = reduce(recurrence)
    measured = measure(recurrence, relative_tolerances=(1e-11,), outputs=("counts",), engine="dense")
    scale = torch.linalg.matrix_norm(recurrence.dense(), 2)
    assert bool((distance(found.recurrence, recurrence) <= 1e-9 * scale).all())
    assert bool((found.bound <= 1e-9 * scale).all())
    assert torch.equal(found.state_size[..., 1:], measured.relative_count[..., 0])
    assert not bool(found.state_size[..., 0].any())
    assert int(found.recurrence.state_size()[0]) == int(found.state_size.max())


def test_full_complex_transitions():
    generator = torch.Generator().manual_seed(6)
    A = torch.randn(12, 3, 3, generator=generator, dtype=torch.complex128) / 3
    B, C = (torch.randn(12, 3, generator=generator, dtype=torch.complex128) for _ in range(2))
    recurrence = Recurrence(A, B, C)
    found = reduce(recurrence)
    # Three complex states are six real ones.
    assert found.state_size.tolist() == [min(6, i, 12 - i) for i in range(12)]
    assert float(distance(found.recurrence, recurrence)) < 1e-9


def test_what_is_forgotten_takes_no_state():
    # A reset at 10, and a state that is written and never read.
    recurrence = random_recurrence("diagonal", 1, 20, 4)
    A, C = recurrence.A.clone(), recurrence.C.clone()
    A[10], C[:, 3] = 0, 0
    found = reduce(Recurrence(A, recurrence.B, C))
    assert found.state_size.tolist() == [0, 1, 2, *[3] * 5, 2, 1, 0, 1, 2, 3, 3, 3, 3, 3, 2, 1]
    assert float(distance(found.recurrence, Recurrence(A, recurrence.B, C))) < 1e-12


@pytest.mark.parametrize("states", [1, 3, 5])
def test_truncations_are_no_nearer_than_possible_and_not_much_farther(states):
    recurrence = random_recurrence("diagonal", 3, 40, 8, batch=(20,))
    found = reduce(recurrence, state_size=states)
    sigma = hankel_singular_values(recurrence, engine="dense")
    error = distance(found.recurrence, recurrence)
    torch.testing.assert_close(found.bound, error)
    assert int(found.state_size.max()) == states
    # Eckart, Young: σ_{r+1} at any position; and twice the sum of all that is dropped there and elsewhere.
    assert bool((error >= sigma[..., states].amax(-1) * (1 - 1e-9)).all())
    assert bool((error <= 2 * sigma[..., states:].sum((-1, -2))).all())


def test_a_tolerance_drops_what_is_below_it_at_each_position():
    recurrence = random_recurrence("diagonal", 4, 40, 8)
    sigma = hankel_singular_values(recurrence, engine="dense")[:, :8]
    # Between two values: what is above one of them is round-off's to say.
    tolerance = 1.001 * float(sigma.median())
    found = reduce(recurrence, tolerance=tolerance)
    assert torch.equal(found.state_size[1:], (sigma > tolerance).sum(-1))
    assert len(set(found.state_size.tolist())) > 2


def test_a_last_tap_takes_one_state_if_the_recurrence_may_vary_and_all_if_not():
    kernel = torch.zeros(16, dtype=torch.float64)
    kernel[15] = 2.0
    invariant = reduce(Convolution(kernel, 16))
    recurrence = Recurrence(torch.ones(16, 1), torch.eye(16, dtype=torch.float64), Convolution(kernel, 16).dense())
    varying = reduce(recurrence)
    assert invariant.state_size.tolist() == [15] * 16
    assert varying.state_size.tolist() == [0] + [1] * 15
    torch.testing.assert_close(varying.recurrence.dense(), Convolution(kernel, 16).dense())


def test_what_overflows_on_the_way_is_refused():
    recurrence = random_recurrence("diagonal", 0, 8, 2)
    huge = Recurrence(recurrence.A * 1e200, recurrence.B, recurrence.C)
    with pytest.raises(InputError):
        reduce(huge)
