import dataclasses

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from statesize.spectra.shifts.certified import SharedThresholds, enclose_largest


@dataclasses.dataclass
class Fake:
    """Eliminations of known singular values σ (N, b, r) that miss thresholds at random within what they state."""

    sigma: Tensor
    distance: float
    generator: torch.Generator
    chosen: Tensor
    evaluations: int = 0

    @property
    def error(self) -> Tensor:
        return torch.zeros(len(self.sigma), dtype=torch.float64)

    def at(self, index: Tensor) -> "Fake":
        return dataclasses.replace(self, sigma=self.sigma[index], chosen=index)

    def counts(self, shift: Tensor) -> tuple[Tensor, Tensor]:
        size = self.sigma.shape[:2]
        distance = self.distance * shift[:, None].expand(size)
        miss = distance * (2 * torch.rand(size, generator=self.generator, dtype=torch.float64) - 1)
        return (self.sigma > (shift[:, None] + miss)[..., None]).sum(-1), distance


def every(limit):
    return torch.arange(len(limit))


def fake(seed: int, groups: int, b: int, r: int, distance: float = 1e-9) -> Fake:
    """Singular values of neighbouring positions that are near to each other."""
    g = torch.Generator().manual_seed(seed)
    spread = torch.rand(groups, 1, 1, generator=g, dtype=torch.float64) * 8
    sigma = torch.exp(-spread * torch.rand(groups, 1, r, generator=g, dtype=torch.float64))
    drift = 0.3 * torch.randn(groups, b, 1, generator=g, dtype=torch.float64).cumsum(1) / b**0.5
    return Fake((sigma * torch.exp(drift)).sort(-1, descending=True).values, distance, g, torch.arange(groups))


def bounds_on(values: Tensor, width: float) -> tuple[Tensor, Tensor]:
    return values * (1 - width), values * (1 + width)


@given(st.integers(0, 2**31), st.sampled_from((0.02, 0.1, 0.5)), st.sampled_from((1e-9, 1e-4)))
def test_bounds_hold_and_are_close(seed: int, accuracy: float, distance: float) -> None:
    eliminations = fake(seed, 5, 16, 200, distance)
    own = 0.1 * eliminations.sigma[..., 0]
    exact = (eliminations.sigma > own[..., None]).sum(-1)
    limit, error = torch.full_like(exact, 200), torch.zeros(5, 1, dtype=torch.float64)
    wanted = torch.ones_like(limit, dtype=torch.bool)
    shared = SharedThresholds(
        eliminations, every(limit), *bounds_on(own, 0.02), wanted, 0 * limit, limit, error, accuracy
    )
    lower, upper = shared.bounds(lambda chosen: bounds_on(own, 1e-4))
    assert bool(((lower <= exact) & (exact <= upper)).all())
    apart = upper - lower > (accuracy * upper).clamp(min=1)
    # Only where several singular values lie so close together that the rounds do not suffice to tell them apart.
    near = ((eliminations.sigma / own[..., None]).log().abs() < 10 * distance + 2e-3).sum(-1)
    assert not bool((apart & (near < 2)).any())


@given(st.integers(0, 2**31), st.sampled_from((1e-9, 1e-4, 1e-2)))
def test_bounds_hold_right_beside_singular_values(seed: int, distance: float) -> None:
    eliminations = fake(seed, 5, 16, 60, distance)
    beside = 1 + distance * (2 * torch.rand(5, 16, generator=eliminations.generator, dtype=torch.float64) - 1)
    own = eliminations.sigma[..., 30] * beside
    exact = (eliminations.sigma > own[..., None]).sum(-1)
    limit, error = torch.full_like(exact, 60), torch.zeros(5, 1, dtype=torch.float64)
    wanted = torch.ones_like(limit, dtype=torch.bool)
    lower, upper = SharedThresholds(
        eliminations, every(limit), own, own, wanted, 0 * limit, limit, error, 0.02
    ).bounds()
    assert bool(((lower <= exact) & (exact <= upper)).all())


def test_positions_that_are_not_asked_cost_nothing() -> None:
    eliminations = fake(1, 3, 8, 50)
    own, limit = 0.1 * eliminations.sigma[..., 0], torch.full((3, 8), 50)
    wanted = torch.zeros(3, 8, dtype=torch.bool)
    error = torch.zeros(3, 1, dtype=torch.float64)
    lower, upper = SharedThresholds(eliminations, every(limit), own, own, wanted, 0 * limit, limit, error, 0.1).bounds()
    assert not lower.any()
    assert torch.equal(upper, limit)


def test_thresholds_within_the_error_stay_open() -> None:
    eliminations = fake(2, 1, 8, 50)
    own, limit = 0.1 * eliminations.sigma[..., 0], torch.full((1, 8), 50)
    wanted = torch.ones(1, 8, dtype=torch.bool)
    error = torch.full((1, 1), 10.0, dtype=torch.float64)
    lower, upper = SharedThresholds(eliminations, every(limit), own, own, wanted, 0 * limit, limit, error, 0.1).bounds()
    assert not lower.any()
    assert torch.equal(upper, limit)


@pytest.mark.parametrize("close", [4e-2, 1e-4])
@given(seed=st.integers(0, 2**31), distance=st.sampled_from((1e-9, 1e-3)))
def test_largest_values_are_enclosed(close: float, seed: int, distance: float) -> None:
    eliminations = fake(seed, 4, 16, 30, distance)
    largest = eliminations.sigma[..., 0]
    chosen = torch.rand(4, 16, generator=eliminations.generator) < 0.5
    error = torch.zeros(4, 1, dtype=torch.float64)
    low, high = enclose_largest(eliminations, 1e-3 * largest, 10 * largest, chosen, error, close)
    assert bool(((low <= largest) & (largest <= high)).all())
    assert bool((high / low < 1 + max(1.01 * close, 40 * distance))[chosen].all())


def test_largest_values_without_a_lower_bound() -> None:
    eliminations = fake(5, 2, 8, 30)
    largest = eliminations.sigma[..., 0]
    every, error = torch.ones(2, 8, dtype=torch.bool), torch.zeros(2, 1, dtype=torch.float64)
    low, high = enclose_largest(eliminations, torch.zeros_like(largest), 10 * largest, every, error, 1e-2)
    assert bool(((low <= largest) & (largest <= high)).all())
    assert bool((high < 1.02 * low).all())
