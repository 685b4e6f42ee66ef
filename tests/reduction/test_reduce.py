"""Convolutions become recurrences: exact where the middle Hankel matrix has room, else within a bound."""

import numpy as np
import pytest
import torch

import statesize as ss
from statesize.operators import Convolution, Dense, Recurrence
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


def states_of(found):
    assert len(set(found.state_size.flatten().tolist())) == 1
    return int(found.state_size.max())


@pytest.mark.parametrize("length", [32, 33])
@pytest.mark.parametrize("states", [1, 2, 5, 11])
def test_exact_with_the_effective_state_size_and_not_with_less(states, length):
    operator = Convolution(systems(states, 6, states, length, radius=0.97), length)
    found = reduce(operator)
    assert (found.method, states_of(found)) == ("ho_kalman", states)
    middle = ss.metrics.hankel_singular_values(operator, positions=[length // 2], engine="dense")[:, 0]
    assert bool(((middle > 1e-10 * middle[:, :1]).sum(-1) == states).all())
    torch.testing.assert_close(found.singular_values[:, :states], middle[:, :states])
    assert bool((distance(found, operator) <= torch.minimum(found.bound, 1e-9 * middle[:, 0])).all())
    # H_{L/2} of any recurrence with fewer states has a lower rank, and is σ away from this one.
    if states > 1:
        less = reduce(operator, state_size=states - 1)
        assert states_of(less) == states - 1
        assert bool((distance(less, operator) >= middle[:, states - 1] * (1 - 1e-9)).all())


@pytest.mark.parametrize("states", [2, 6, 12, pytest.param(24, marks=pytest.mark.slow)])
def test_the_bound_holds_for_every_random_kernel(states):
    # 1,000 in all four.
    operator = Convolution(random_kernels(states, 252 if states > 2 else 244, 40), 40)
    found = reduce(operator, state_size=states)
    error = distance(found, operator)
    assert states_of(found) == states
    assert bool(((error > 0) & (error <= found.bound)).all())


def test_balanced_truncation_is_stable_and_within_twice_what_it_drops():
    kernels = random_kernels(0, 100, 40)[:50]
    found = reduce(Convolution(kernels, 40), state_size=6)
    assert found.method == "balanced"
    hankel = torch.nn.functional.pad(kernels[:, 1:], (0, 39)).unfold(-1, 39, 1)[:, :39]
    values = torch.linalg.svdvals(hankel)
    torch.testing.assert_close(found.singular_values, values, rtol=1e-9, atol=1e-12)
    assert bool((found.bound <= 2 * values[:, 6:].sum(-1) * (1 + 1e-9)).all())
    assert bool((torch.linalg.eigvals(found.recurrence.A).abs().amax(-1) < 1).all())


@pytest.mark.parametrize("tolerance", [3.0, 0.3, 1e-3])
def test_a_tolerance_is_kept_with_few_states(tolerance):
    t = torch.arange(64, dtype=torch.float64)
    operator = Convolution(1 / (1 + t) + 0.1 * (0.8**t) * torch.cos(2 * t), 64)
    found = reduce(operator, tolerance=tolerance)
    assert float(distance(found, operator)) <= float(found.bound) <= tolerance
    # Nothing smaller comes so near at the middle position.
    middle = ss.metrics.hankel_singular_values(operator, positions=[32], engine="dense")[0]
    assert int((middle > tolerance).sum()) <= states_of(found) < 12


def test_growing_kernels_and_short_ones():
    t = torch.arange(24, dtype=torch.float64)
    growing = reduce(Convolution(1.3**t, 24))
    assert (growing.method, states_of(growing)) == ("ho_kalman", 1)
    short = Convolution(torch.tensor([0.0, 3.0, 1.0, 2.0]), 24)
    assert states_of(reduce(short)) == 3
    assert float(distance(reduce(short), short)) < 1e-12
    nothing = reduce(Convolution(torch.tensor([2.0, 0.0]), 24), tolerance=0.1)
    assert (states_of(nothing), float(nothing.bound)) == (0, 0.0)
    torch.testing.assert_close(nothing.recurrence.dense(), 2 * torch.eye(24, dtype=torch.float64))
    assert states_of(reduce(Convolution(torch.ones(3), 1))) == 0


@pytest.mark.parametrize(("growth", "method", "states"), [(4, "ho_kalman", 2), (16, "balanced", 15)])
def test_states_of_the_middle_are_exact_to_a_billionth_of_its_largest_value(growth, method, states):
    # Two modes; what rounding the middle changes grows with the faster one, to 3e-12 and 3e-8 of σ_1.
    t = torch.arange(16, dtype=torch.float64)
    operator = Convolution(0.5**t + growth ** (t - 15), 16)
    found = reduce(operator)
    assert (found.method, states_of(found)) == (method, states)
    largest = ss.metrics.hankel_singular_values(operator, positions=[8], engine="dense")[0, 0]
    assert float(distance(found, operator)) <= float(found.bound) <= 1e-9 * float(largest)


@pytest.mark.parametrize(("share", "states"), [(1e-10, 2), (1e-14, 1)])
def test_modes_below_a_trillionth_of_the_largest_value_are_round_off(share, states):
    # The second singular value of the middle is about 0.64 of the share of the first.
    t = torch.arange(16, dtype=torch.float64)
    A, C = torch.tensor([[0.5, -0.5], [1.0, share]], dtype=torch.float64)[:, None].expand(-1, 16, -1)
    for operator in (Convolution(0.5**t + share * (-0.5) ** t, 16), Recurrence(A, torch.ones_like(A), C)):
        assert int(reduce(operator).state_size.max()) == states


def test_batches_need_the_largest_of_their_states():
    kernel = torch.cat([systems(0, 2, 2, 32), systems(1, 2, 5, 32)]).reshape(2, 2, 32)
    found = reduce(Convolution(kernel, 32))
    assert states_of(found) == int(found.recurrence.state_size()[0]) == 5
    assert found.bound.shape == found.recurrence.batch_shape == (2, 2)
    assert bool((distance(found, Convolution(kernel, 32)) < 1e-9).all())
    assert found.singular_values.shape == (2, 2, 16)


@pytest.mark.parametrize(
    ("operator", "options", "name"),
    [
        (Dense(torch.eye(3)), {}, "operator"),
        (Convolution(torch.ones(0, 4), 8), {}, "operator"),
        (Convolution(torch.ones(4), 8), {"state_size": 2, "tolerance": 0.1}, "tolerance"),
        (Convolution(torch.ones(4), 8), {"state_size": 0}, "state_size"),
        (Convolution(torch.ones(4), 8), {"state_size": 1.5}, "state_size"),
        (Convolution(torch.ones(4), 8), {"tolerance": 0.0}, "tolerance"),
        (Convolution(torch.ones(4), 8), {"tolerance": float("nan")}, "tolerance"),
        (Convolution(torch.ones(4), 8), {"tolerance": 1e-30}, "tolerance"),
        (Recurrence(*torch.ones(3, 4, 2)), {"tolerance": -1.0}, "tolerance"),
        (Recurrence(*torch.ones(3, 4, 2)), {"tolerance": True}, "tolerance"),
    ],
)
def test_what_is_refused(operator, options, name):
    with pytest.raises(ss.errors.InputError, match=f"^{name} must "):
        reduce(operator, **options)


def test_large_entries_of_the_transition_are_in_the_bound() -> None:
    # A of two states has entries of 15,000, which cancel: what A² and A³ are depends on the order of the products.
    kernel = torch.tensor([0.0, 1.479e-6, -2.4655e-14, -4.5403e-2, -5.4872e-7], dtype=torch.float64)
    found = reduce(Convolution(kernel, 5))
    assert (found.method, states_of(found)) == ("ho_kalman", 2)
    A, B, C = (getattr(found.recurrence, name).numpy().astype(np.longdouble) for name in "ABC")
    assert abs(A).max() > 1e4
    exact = np.array([(C @ np.linalg.matrix_power(A, power) @ B).item() for power in range(4)])
    assert np.abs(exact - kernel[1:].numpy()).sum() <= float(found.bound) < 1e-10
    rounded = found.recurrence.dense()[1:, 0].numpy()
    assert np.abs(rounded - kernel[1:].numpy()).sum() <= float(found.bound)
