"""Convolutions become recurrences: exact where the middle Hankel matrix has room, else within a bound."""

import math

import numpy as np
import pytest
import torch

import statesize as ss
from statesize.operators import Convolution, Dense, Recurrence
from statesize.reduction.convolutions import BalancedKernel, MiddleHankel
from statesize.reduction.reduce import reduce


def systems(seed, entries, states, length, radius=0.9):
    """Kernels of random recurrences with so many states, (entries, length)."""
    g = torch.Generator().manual_seed(seed)
    A = torch.randn(entries, states, states, generator=g, dtype=torch.float64)
    A = A * (radius / torch.linalg.eigvals(A).abs().amax(-1))[:, None, None]
    B, C = torch.randn(2, entries, states, generator=g, dtype=torch.float64)
    state, taps = B[..., None], [torch.ones(entries, dtype=torch.float64)]
    for _ in range(length - 1):
        taps.append((C[:, None] @ state).flatten())
        state = A @ state
    return torch.stack(taps, -1)


def random_kernels(seed, entries, length):
    """White noise, noise that dies out, a few waves, and what a recurrence of 12 states makes."""
    g = torch.Generator().manual_seed(seed)
    t = torch.arange(length, dtype=torch.float64)
    share = entries // 4
    noise = torch.randn(2, share, length, generator=g, dtype=torch.float64)
    frequency, phase = torch.rand(2, share, 3, 1, generator=g, dtype=torch.float64)
    waves = torch.cos(3 * frequency * t + 6 * phase).sum(1)
    return torch.cat([noise[0], noise[1] * 0.85**t, waves, systems(seed, share, 12, length)])


def distance(found, operator):
    """‖T − T_r‖₂ of each entry, by decomposing the difference."""
    return torch.linalg.matrix_norm(found.recurrence.dense() - operator.dense(), 2)


def distance_of(system, kernels):
    """‖T − T_r‖₂ of the operators of a system's taps and of kernels."""
    misfit = torch.nn.functional.pad(kernels[:, 1:] - system.taps(kernels.shape[-1] - 1), (1, 0))
    return torch.linalg.matrix_norm(Convolution(misfit, kernels.shape[-1]).dense(), 2)


def frequency_error(system, kernel, frequencies=96):
    """The largest |G − G_r| over the unit circle, G of the taps and nothing behind them, (E,)."""
    z = torch.exp(2j * math.pi * torch.arange(frequencies) / frequencies).to(torch.complex128)
    lags = torch.arange(1, kernel.shape[-1] + 1)
    whole = kernel.to(z.dtype) @ z ** -lags[:, None]
    eye = torch.eye(system.A.shape[-1], dtype=z.dtype)
    resolvent = torch.linalg.solve(z[:, None, None] * eye - system.A[:, None], system.B[:, None, :, None].to(z.dtype))
    return (whole - (system.C[:, None, None].to(z.dtype) @ resolvent)[..., 0, 0]).abs().amax(-1)


@pytest.mark.parametrize("length", [32, 33])
@pytest.mark.parametrize("states", [1, 2, 5, 11])
def test_exact_with_the_effective_state_size_and_not_with_less(states, length):
    operator = Convolution(systems(states, 6, states, length, radius=0.97), length)
    found = reduce(operator)
    assert (found.method, found.state_size) == ("ho_kalman", states)
    middle = ss.metrics.hankel_singular_values(operator, positions=[length // 2], engine="dense")[:, 0]
    ess = ss.measure(operator, relative_tolerances=(1e-10,), outputs=("counts",), positions=[length // 2])
    assert bool((ess.relative_count == states).all())
    scale = middle[:, 0]
    assert bool((distance(found, operator) <= 1e-9 * scale).all())
    assert bool((distance(found, operator) <= found.bound).all())
    # H_{L/2} of any recurrence with fewer states has a lower rank, and is σ away from this one.
    if states > 1:
        less = reduce(operator, state_size=states - 1)
        assert less.state_size == states - 1
        assert bool((distance(less, operator) >= middle[:, states - 1] * (1 - 1e-9)).all())


@pytest.mark.parametrize("states", [2, 6, 12, pytest.param(24, marks=pytest.mark.slow)])
def test_the_bound_holds_for_every_random_kernel(states):
    # 1,000 in all four.
    kernels = random_kernels(states, 252 if states > 2 else 244, 40)
    operator = Convolution(kernels, 40)
    found = reduce(operator, state_size=states)
    error = distance(found, operator)
    assert found.state_size == states
    assert bool(((error > 0) & (error <= found.bound)).all())
    # The theorem itself: for inputs of any length, between the optimum σ_{r+1} and 2 Σ dropped σ.
    balanced = BalancedKernel.of(kernels[:, 1:])
    system, dropped = balanced.truncated(states), balanced.values[:, states:]
    errors = frequency_error(system, kernels[:, 1:])
    assert bool((errors <= 2 * dropped.sum(-1)).all())
    assert bool((errors.amax() >= dropped[:, 0].amin()).all())
    assert bool((torch.linalg.eigvals(system.A).abs().amax(-1) < 1).all())
    assert bool((distance_of(system, kernels) <= 2 * dropped.sum(-1)).all())


def test_the_bound_of_a_truncation_is_twice_the_dropped_values_and_their_round_off():
    # The Hankel matrix ((3, 2), (2, 0)) has the eigenvalues 4 and −1, each known to 8 eps times 4.
    bounds, eps = BalancedKernel.of(torch.tensor([[3.0, 2.0]], dtype=torch.float64)).bounds(), 2.0**-52
    expected = torch.tensor([[10 + 128 * eps, 2 + 128 * eps, 128 * eps]], dtype=torch.float64)
    torch.testing.assert_close(bounds, expected, rtol=1e-14, atol=0)


def test_truncating_a_part_of_the_hankel_matrix_obeys_no_such_bound():
    kernels = random_kernels(0, 100, 40)
    middle = MiddleHankel.of(kernels[:, 1:])
    assert bool((distance_of(middle.realised(6), kernels) > 2 * middle.values[:, 6:].sum(-1)).any())


@pytest.mark.parametrize("tolerance", [3.0, 0.3, 1e-3])
def test_a_tolerance_is_kept_with_few_states(tolerance):
    t = torch.arange(64, dtype=torch.float64)
    operator = Convolution(1 / (1 + t) + 0.1 * (0.8**t) * torch.cos(2 * t), 64)
    found = reduce(operator, tolerance=tolerance)
    assert float(distance(found, operator)) <= float(found.bound) <= tolerance
    # Nothing smaller comes so near at the middle position.
    middle = ss.metrics.hankel_singular_values(operator, positions=[32], engine="dense")[0]
    assert int((middle > tolerance).sum()) <= found.state_size < 12


def test_kernels_in_single_precision_need_a_tolerance():
    t = torch.arange(128)
    operator = Convolution(0.95**t * torch.cos(0.7 * t), 128)
    found = reduce(operator, tolerance=1e-5)
    assert found.state_size == 2
    assert float(distance(found, operator)) <= float(found.bound) < 1e-5


def test_growing_kernels_and_short_ones():
    t = torch.arange(24, dtype=torch.float64)
    growing = reduce(Convolution(1.3**t, 24))
    assert (growing.method, growing.state_size) == ("ho_kalman", 1)
    short = Convolution(torch.tensor([0.0, 3.0, 1.0, 2.0]), 24)
    found = reduce(short)
    assert found.state_size == 3
    assert float(distance(found, short)) < 1e-12
    nothing = reduce(Convolution(torch.tensor([2.0, 0.0]), 24), tolerance=0.1)
    assert (nothing.state_size, float(nothing.bound)) == (0, 0.0)
    torch.testing.assert_close(nothing.recurrence.dense(), 2 * torch.eye(24, dtype=torch.float64))
    torch.testing.assert_close(nothing.module()(torch.ones(3, 1).double()), 2 * torch.ones(3, 1).double())
    assert reduce(Convolution(torch.ones(3), 1)).state_size == 0


def test_a_last_tap_alone_keeps_every_tap():
    # H_{L/2} has rank 1, but its shift does not agree: only a recurrence that varies can do with one state.
    kernel = torch.zeros(16, dtype=torch.float64)
    kernel[15] = 1.0
    found = reduce(Convolution(kernel, 16))
    assert (found.method, found.state_size) == ("balanced", 15)
    assert float(distance(found, Convolution(kernel, 16))) < 1e-12


@pytest.mark.parametrize(("growth", "method", "states"), [(4, "ho_kalman", 2), (16, "balanced", 15)])
def test_states_of_the_middle_are_exact_to_a_billionth_of_its_largest_value(growth, method, states):
    # Two modes; what rounding the middle changes grows with the faster one, to 3e-12 and 3e-8 of σ_1.
    t = torch.arange(16, dtype=torch.float64)
    operator = Convolution(0.5**t + growth ** (t - 15), 16)
    found = reduce(operator)
    assert (found.method, found.state_size) == (method, states)
    largest = ss.metrics.hankel_singular_values(operator, positions=[8], engine="dense")[0, 0]
    assert float(distance(found, operator)) <= float(found.bound) <= 1e-9 * float(largest)


@pytest.mark.parametrize(("share", "states"), [(1e-10, 2), (1e-14, 1)])
def test_modes_below_a_trillionth_of_the_largest_value_are_round_off(share, states):
    # The second singular value of the middle is about 0.64 of the share of the first.
    t = torch.arange(16, dtype=torch.float64)
    assert reduce(Convolution(0.5**t + share * (-0.5) ** t, 16)).state_size == states


def test_batches_need_the_largest_of_their_states():
    kernel = torch.cat([systems(0, 2, 2, 32), systems(1, 2, 5, 32)]).reshape(2, 2, 32)
    found = reduce(Convolution(kernel, 32))
    assert found.state_size == 5
    assert found.bound.shape == found.recurrence.batch_shape == (2, 2)
    assert bool((distance(found, Convolution(kernel, 32)) < 1e-9).all())
    assert int(found.recurrence.state_size()[0]) == 5
    assert found.singular_values.shape == (2, 2, 16)


@pytest.mark.parametrize(
    ("operator", "options", "message"),
    [
        (
            Dense(torch.eye(3)),
            {},
            "operator must be a Convolution or a Recurrence, which have a finite recurrence of their own, got Dense",
        ),
        (Convolution(torch.ones(0, 4), 8), {}, "batch shape (0,)"),
        (
            Convolution(torch.ones(4), 8),
            {"state_size": 2, "tolerance": 0.1},
            "tolerance must be left out",
        ),
        (Convolution(torch.ones(4), 8), {"state_size": 0}, "whole number of at least 1"),
        (Convolution(torch.ones(4), 8), {"state_size": 1.5}, "whole number of at least 1"),
        (Convolution(torch.ones(4), 8), {"tolerance": 0.0}, "a number above 0"),
        (Convolution(torch.ones(4), 8), {"tolerance": float("nan")}, "a number above 0"),
        (
            Convolution(torch.ones(4), 8),
            {"tolerance": 1e-30},
            "the round-off of these kernels",
        ),
        (Recurrence(*torch.ones(3, 4, 2)), {"tolerance": -1.0}, "a number above 0"),
    ],
)
def test_what_is_refused(operator, options, message):
    with pytest.raises(ss.errors.InputError, match=r"^[^\n]+$") as raised:
        reduce(operator, **options)
    assert message in str(raised.value)


def test_large_entries_of_the_transition_are_in_the_bound() -> None:
    # A of two states has entries of 15,000, which cancel: what A² and A³ are depends on the order of the products.
    kernel = torch.tensor([0.0, 1.479e-6, -2.4655e-14, -4.5403e-2, -5.4872e-7], dtype=torch.float64)
    reduction = reduce(Convolution(kernel, 5))
    assert (reduction.method, reduction.state_size) == ("ho_kalman", 2)
    assert float(reduction.system.A.abs().max()) > 1e4
    A, B, C = (
        part.numpy().astype(np.longdouble) for part in (reduction.system.A, reduction.system.B, reduction.system.C)
    )
    exact = np.array([C @ np.linalg.matrix_power(A, power) @ B for power in range(4)])
    assert np.abs(exact - kernel[1:].numpy()).sum() <= float(reduction.bound) < 1e-10
    rounded = reduction.recurrence.dense()[1:, 0].numpy()
    assert np.abs(rounded - kernel[1:].numpy()).sum() <= float(reduction.bound)
