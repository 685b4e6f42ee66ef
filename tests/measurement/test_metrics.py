import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from statesize.errors import InputError
from statesize.measurement.measurement import Capacity
from statesize.measurement.metrics import energy_ess, entropy_ess, tolerance_ess, utilisation
from statesize.spectra.cut import Cut

VALUES = torch.tensor([[4.0, 2.0, 0.03, 0.0], [0.0, 0.0, 0.0, 0.0]], dtype=torch.float64)


def test_tolerance_counts_strictly_above() -> None:
    assert tolerance_ess(VALUES, 2.0).tolist() == [1, 0]
    assert tolerance_ess(VALUES, [0.0, 0.01, 3.0]).tolist() == [[3, 3, 1], [0, 0, 0]]
    assert (tolerance_ess(VALUES[0], 1.0).shape, tolerance_ess(VALUES[0], [1.0]).shape) == ((), (1,))


def test_relative_tolerance_scales_with_the_largest() -> None:
    assert tolerance_ess(VALUES, [0.4, 0.005], relative=True).tolist() == [[2, 3], [0, 0]]
    assert tolerance_ess(VALUES * 1e-20, 0.4, relative=True).tolist() == [2, 0]


def test_entropy_by_hand() -> None:
    # p = 3/4, 1/4: exp(−¾ ln ¾ − ¼ ln ¼) = 4 / 3^(3/4).
    found = entropy_ess(torch.tensor([3.0, 1.0, 0.0], dtype=torch.float64))
    assert math.isclose(float(found), 4 / 3**0.75)


@pytest.mark.parametrize("scale", [1e-300, 1e-30, 1e30, 1e300])
def test_entropy_ignores_scale(scale: float) -> None:
    assert math.isclose(float(entropy_ess(VALUES[0] * scale)), float(entropy_ess(VALUES[0])))


def test_entropy_has_finite_gradients_beside_zeros() -> None:
    leaf = VALUES.clone().requires_grad_()
    entropy_ess(leaf).sum().backward()
    assert bool(torch.isfinite(leaf.grad).all())
    positive = torch.tensor([2.0, 0.7, 0.1], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(entropy_ess, (positive,))


def test_values_of_few_digits_are_taken_as_they_are() -> None:
    # 0.1 in float32, and 0.01 in bfloat16, are more than 0.1 and 0.01.
    tenths, hundredths = torch.full((3,), 0.1), torch.tensor([1.0, 0.01, 0.01], dtype=torch.bfloat16)
    assert (tolerance_ess(tenths, 0.1), tolerance_ess(tenths, [0.1, 0.2]).tolist()) == (3, [3, 0])
    assert tolerance_ess(hundredths, 0.01) == tolerance_ess(hundredths, 0.01, relative=True) == 3
    for dtype in (torch.float16, torch.bfloat16, torch.float32):
        for r in (1000, 1003, 2051):
            assert entropy_ess(torch.ones(r, dtype=dtype)).item() == r
        many = torch.tensor([1.0] + 3000 * [0.02], dtype=dtype)
        assert energy_ess(many, 0.01) == energy_ess(many.double(), 0.01)


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=12), st.floats(0, 0.999))
def test_energy_is_the_smallest_number_that_suffices(values: list[float], epsilon: float) -> None:
    sigma = torch.tensor(sorted(values, reverse=True), dtype=torch.float64)
    m = int(energy_ess(sigma, epsilon))
    energy = [v * v for v in sigma.tolist()]
    needed = (1 - epsilon) * math.fsum(energy)
    assert math.fsum(energy[:m]) >= needed * (1 - 1e-12)
    assert m == 0 or math.fsum(energy[: m - 1]) <= needed * (1 + 1e-12)


def test_energy_of_nothing_is_zero() -> None:
    assert energy_ess(VALUES, 0.01).tolist() == [2, 0]
    assert energy_ess(torch.zeros(3, 0), 0.01).tolist() == [0, 0, 0]


def test_ceiling_falls_at_both_ends() -> None:
    whole = Cut(8, tuple(range(1, 8)))
    assert Capacity.at(whole, torch.full((8,), 3)).ceiling.tolist() == [1, 2, 3, 3, 3, 2, 1]
    assert Capacity.at(replace(whole, past=2), torch.full((8,), 9)).ceiling.tolist() == [2, 2, 2, 2, 2, 2, 1]
    assert Capacity.at(replace(whole, future=2), torch.arange(8)).ceiling.tolist() == [1, 2, 2, 2, 2, 2, 2]
    assert Capacity.at(whole, torch.full((8,), 9), inputs=3).ceiling.tolist() == [3, 6, 5, 4, 3, 2, 1]
    assert Capacity.at(whole, torch.full((8,), 9), outputs=3).ceiling.tolist() == [1, 2, 3, 4, 5, 6, 3]


def test_where_a_size_binds() -> None:
    positions = torch.arange(1, 12)
    state, cache = torch.full((12,), 3), torch.arange(12)
    whole = Cut(12, tuple(range(1, 12)))
    assert positions[Capacity.at(whole, state).binds].tolist() == list(range(3, 10))
    assert positions[Capacity.at(whole, cache).binds].tolist() == list(range(3, 10))
    assert positions[Capacity.at(whole, 2 * cache, inputs=2).binds].tolist() == list(range(3, 10))
    middle = Capacity.at(Cut(40, tuple(range(1, 40))), torch.arange(40)).binds.nonzero().flatten() + 1
    assert middle.tolist() == list(range(10, 31))
    assert not Capacity.at(whole, torch.full((12,), 7)).binds.any()
    # A window that has filled, from its size on.
    assert positions[Capacity.at(whole, cache.clamp(max=4)).binds].tolist() == list(range(4, 9))
    # As many inputs and outputs have to lie inside windows, too.
    assert Capacity.at(replace(whole, past=3), state).binds.tolist() == [True] * 9 + [False] * 2
    assert not Capacity.at(replace(whole, future=2), state).binds.any()


def test_utilisation_is_of_cuts_where_the_size_binds() -> None:
    binds = torch.tensor([True, True, False])
    found = utilisation(torch.tensor([[0.0, 1.0, 1.0], [0.0, 4.0, 1.0]]), torch.tensor([0, 4, 1]), binds)
    assert torch.isnan(found[:, [0, 2]]).all()
    assert found[:, 1].tolist() == [0.25, 1.0]


def test_bad_input_is_refused_by_name() -> None:
    for name, call in (
        *(("tolerance", lambda bad=bad: tolerance_ess(VALUES, bad)) for bad in (-1.0, math.nan, math.inf)),
        ("epsilon", lambda: energy_ess(VALUES, 1)),
        *(("values", lambda bad=bad: entropy_ess(torch.tensor(bad))) for bad in (1.0, [1, 1, 1], [1.0, math.nan])),
        ("values", lambda: tolerance_ess(torch.tensor([1.0, math.nan]), 0.1)),
        ("values", lambda: energy_ess(torch.tensor([1.0, math.nan]), 0.1)),
    ):
        with pytest.raises(InputError, match=f"^{name} must "):
            call()
