"""The bound holds for every recurrence, calibrations cover what they say, sizes are the smallest that will do."""

import numpy as np
import pytest
import torch

from statesize.errors import InputError
from statesize.lab.studies.engine.predictions import (
    GLA_STUDENTS,
    Calibration,
    calibrate,
    least_error,
    predicted_error,
    smallest_size,
)
from statesize.lab.training.distillation_losses import operator_error
from statesize.measurement.measurement import measure
from statesize.operators import Dense, Recurrence, SoftmaxAttention

LENGTH = 20


def random(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def gated(states, seed):
    return Recurrence(random(3, LENGTH, states, seed=seed).sigmoid(), *random(2, 3, LENGTH, states, seed=seed + 1))


@pytest.mark.parametrize("size", [1, 2])
def test_no_recurrence_of_the_size_passes_the_bound(size):
    """Students are fitted to one T without any constraint but their state: nothing can do better than they do."""
    teacher = gated(4, 0)
    parts = [part.clone().requires_grad_() for part in random(3, 3, LENGTH, size, seed=9).unbind()]
    optimizer = torch.optim.Adam(parts, lr=0.1)
    for _ in range(80):
        optimizer.zero_grad()
        error = operator_error(teacher, Recurrence(parts[0].sigmoid(), parts[1], parts[2]))
        error.sum().backward()
        optimizer.step()
    bound = least_error(teacher, size)
    assert bool((bound > 0.005).all())
    assert bool((error.detach() >= bound).all())


def test_the_bound_is_reached_where_one_block_is_all_there_is():
    block = random(5, 4, seed=20)
    matrix = torch.nn.functional.pad(block, (0, 5, 4, 0))
    for size in (1, 3):
        U, sigma, V = torch.linalg.svd(block, full_matrices=False)
        nearest = (U[:, :size] * sigma[:size]) @ V[:size]
        best = float((block - nearest).norm() / block.norm())
        assert float(least_error(Dense(matrix), size)) == pytest.approx(best)


@pytest.mark.parametrize("operator", [gated(4, 30), SoftmaxAttention(*random(2, 3, LENGTH, 4, seed=31), scale=1.0)])
def test_the_bound_by_its_definition(operator):
    T, found = operator.dense(), []
    for i in range(1, LENGTH):
        found.append(torch.linalg.svdvals(T[..., i:, :i])[..., 2:].square().sum(-1))
    expected = (torch.stack(found, -1).amax(-1) / T.square().sum((-2, -1))).sqrt()
    torch.testing.assert_close(least_error(operator, 2), expected)
    assert float(least_error(operator, LENGTH).abs().max()) == 0


def made_up_students(count, seed, noise=0.2):
    generator = np.random.default_rng(seed)
    ess, sizes = generator.uniform(1, 8, count), generator.choice([2, 4, 8], count)
    return ess, sizes, 0.1 * ess**0.9 * sizes**-0.5 * np.exp(noise * generator.normal(size=count))


def test_the_calibration_covers_nine_of_ten():
    known = calibrate(*made_up_students(200, 0))
    assert known.ess_power == pytest.approx(0.9, abs=0.1)
    assert known.size_power == pytest.approx(-0.5, abs=0.1)
    ess, sizes, errors = made_up_students(5000, 1)
    below = [error <= known.error(e, int(n)) for e, n, error in zip(ess, sizes, errors, strict=True)]
    assert np.mean(below) == pytest.approx(0.9, abs=0.04)


def test_calibrations_that_cannot_be():
    ess, sizes, errors = made_up_students(20, 2)
    with pytest.raises(InputError, match="at least 10 students, got 9"):
        calibrate(ess[:9], sizes[:9], errors[:9])
    with pytest.raises(InputError, match="positive"):
        calibrate(ess, sizes, 0 * errors)
    with pytest.raises(InputError, match="students must differ"):
        calibrate(ess, [2] * 20, errors)


@pytest.mark.parametrize("loss", [0.9, 0.4, 0.2, 0.1, 0.01])
def test_the_smallest_size_that_will_do(loss):
    measured = measure(gated(8, 40))
    size = smallest_size(measured, loss)
    if size < 8:
        assert predicted_error(measured, size) <= loss
    if size > 1:
        assert predicted_error(measured, size - 1) > loss


def test_a_wanted_loss_that_is_out_of_reach_takes_all_there_is():
    assert smallest_size(measure(gated(8, 50)), 1e-6) == 8


def test_errors_of_calibrations_are_shares():
    assert Calibration(10.0, 1.0, -0.5).error(4.0, 1) == 1
    assert GLA_STUDENTS.error(4.0, 2) > GLA_STUDENTS.error(4.0, 8) > GLA_STUDENTS.error(2.0, 8)
