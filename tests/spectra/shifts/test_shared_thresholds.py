import dataclasses

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from statesize.spectra.shifts.shared_thresholds import Bounds, apart, shared_thresholds


@dataclasses.dataclass
class Fake:
    """Eliminations of known singular values σ (N, b, r) that miss thresholds at random within what they state."""

    sigma: Tensor
    distance: float
    generator: torch.Generator
    evaluated: list[float] = dataclasses.field(default_factory=list)

    @property
    def error(self) -> Tensor:
        return torch.zeros(len(self.sigma), dtype=torch.float64)

    def at(self, index: Tensor) -> "Fake":
        return dataclasses.replace(self, sigma=self.sigma[index])

    def counts(self, shift: Tensor) -> tuple[Tensor, Tensor]:
        size = self.sigma.shape[:2]
        self.evaluated.extend(shift.tolist())
        distance = self.distance * shift[:, None].expand(size)
        miss = distance * (2 * torch.rand(size, generator=self.generator, dtype=torch.float64) - 1)
        return (self.sigma > (shift[:, None] + miss)[..., None]).sum(-1), distance


def fake(seed: int, groups: int, b: int, r: int, distance: float = 1e-9) -> Fake:
    """Singular values of neighbouring positions that are near to each other."""
    g = torch.Generator().manual_seed(seed)
    spread = torch.rand(groups, 1, 1, generator=g, dtype=torch.float64) * 8
    sigma = torch.exp(-spread * torch.rand(groups, 1, r, generator=g, dtype=torch.float64))
    drift = 0.3 * torch.randn(groups, b, 1, generator=g, dtype=torch.float64).cumsum(1) / b**0.5
    return Fake((sigma * torch.exp(drift)).sort(-1, descending=True).values, distance, g)


def searched(eliminations: Fake, ratios: list[float], accuracy: float, **given: Tensor) -> Bounds:
    """With σ_1 between two numbers 2 % apart, unless more or less is known."""
    largest = eliminations.sigma[..., 0]
    known = {
        "low": 0.99 * largest,
        "high": 1.01 * largest,
        "wanted": torch.ones_like(largest, dtype=torch.bool),
        "limit": torch.full_like(largest, eliminations.sigma.shape[-1], dtype=torch.int64),
        "error": torch.zeros_like(largest[:, 0]),
    } | given
    arrays = {name: part.numpy() for name, part in known.items()}
    return shared_thresholds(eliminations, accuracy, np.array(ratios), **arrays)


def exact(eliminations: Fake, ratios: list[float]) -> npt.NDArray[np.int64]:
    sigma = eliminations.sigma
    return torch.stack([(sigma > rho * sigma[..., :1]).sum(-1) for rho in ratios]).numpy()


@given(st.integers(0, 2**31), st.sampled_from((0.0, 0.02, 0.1, 0.5)), st.sampled_from((1e-9, 1e-4)))
def test_bounds_hold_and_are_close(seed: int, accuracy: float, distance: float) -> None:
    eliminations, ratios = fake(seed, 5, 16, 200, distance), [0.5, 0.1, 0.02]
    shared = searched(eliminations, ratios, accuracy)
    counts, sigma = exact(eliminations, ratios), eliminations.sigma
    assert ((shared.lower <= counts) & (counts <= shared.upper)).all()
    # Only where several singular values, or one where counts are exact, lie so close to the threshold that the rounds
    # do not suffice to tell them apart.
    near = torch.stack(
        [((sigma / (rho * sigma[..., :1])).log().abs() < 10 * distance + 2e-3).sum(-1) for rho in ratios]
    )
    assert not (apart(shared, accuracy) & (near.numpy() < (2 if accuracy else 1))).any()


@given(st.integers(0, 2**31), st.sampled_from((1e-9, 1e-4, 1e-2)))
def test_bounds_hold_right_beside_singular_values(seed: int, distance: float) -> None:
    eliminations = fake(seed, 5, 16, 60, distance)
    sigma = eliminations.sigma
    beside = 1 + distance * (2 * torch.rand(5, 16, generator=eliminations.generator, dtype=torch.float64) - 1)
    # One ratio for every position of a group, so some thresholds lie right beside a singular value of theirs.
    for position in range(0, 16, 5):
        rho = float((sigma[0, position, 30] * beside[0, position]) / sigma[0, position, 0])
        shared = searched(eliminations, [rho], 0.02, low=sigma[..., 0], high=sigma[..., 0])
        counts = exact(eliminations, [rho])
        assert ((shared.lower <= counts) & (counts <= shared.upper)).all()


def test_positions_that_are_not_asked_cost_nothing() -> None:
    eliminations = fake(1, 3, 8, 50)
    calls: list[int] = []
    eliminations.at = lambda index: calls.append(len(index))  # type: ignore[method-assign, assignment]
    shared = searched(eliminations, [0.1], 0.1, wanted=torch.zeros(3, 8, dtype=torch.bool))
    assert not calls
    assert (shared.upper == 50).all()


def test_thresholds_within_the_error_stay_open() -> None:
    shared = searched(fake(2, 1, 8, 50), [0.1], 0.1, error=torch.full((1,), 10.0, dtype=torch.float64))
    assert not shared.lower.any()
    assert (shared.upper == 50).all()


@given(seed=st.integers(0, 2**31), distance=st.sampled_from((1e-9, 1e-3)), accuracy=st.sampled_from((0.0, 0.02)))
def test_little_known_of_the_largest_values(seed: int, distance: float, accuracy: float) -> None:
    eliminations, ratios = fake(seed, 4, 16, 30, distance), [0.3, 0.01]
    largest = eliminations.sigma[..., 0]
    wanted = torch.rand(4, 16, generator=eliminations.generator) < 0.5
    shared = searched(eliminations, ratios, accuracy, low=1e-3 * largest, high=10 * largest, wanted=wanted)
    assert ((shared.low <= largest.numpy()) & (largest.numpy() <= shared.high)).all()
    assert (shared.high / shared.low)[wanted.numpy()].max(initial=0) < 1.2
    counts = exact(eliminations, ratios)
    assert ((shared.lower <= counts) & (counts <= shared.upper)).all()


def test_largest_values_without_a_lower_bound() -> None:
    eliminations = fake(5, 2, 8, 30)
    largest = eliminations.sigma[..., 0]
    shared = searched(eliminations, [0.1], 0.0, low=torch.zeros_like(largest), high=10 * largest)
    assert ((shared.low <= largest.numpy()) & (largest.numpy() <= shared.high)).all()
    assert (shared.lower == shared.upper).all()
    assert (shared.lower == exact(eliminations, [0.1])).all()


@dataclasses.dataclass
class Uneven(Fake):
    """Eliminations that are the more uncertain the smaller a threshold is, and now and then far more."""

    often: float = 0.0

    def counts(self, shift: Tensor) -> tuple[Tensor, Tensor]:
        counted, _ = super().counts(shift)
        chance = torch.rand(len(shift), generator=self.generator, dtype=torch.float64)
        distance = torch.where(chance < self.often, 1e6, 1.0) * self.distance / shift
        return counted, distance[:, None].expand(counted.shape)


def test_a_position_of_which_nothing_is_known_spoils_no_others() -> None:
    plain = fake(7, 4, 16, 80)
    eliminations = Uneven(plain.sigma, 1e-12, plain.generator)
    low = 0.99 * plain.sigma[..., 0]
    low[:, 5] = 0
    shared = searched(eliminations, [0.1, 0.01], 0.0, low=low)
    assert not apart(shared, 0.0).any()
    assert (shared.lower == exact(eliminations, [0.1, 0.01])).all()


def test_a_few_uncertain_evaluations_spoil_no_others() -> None:
    """What one of a hundred says of the next is forgotten, or thresholds would stay as far away as it was uncertain."""
    still_open = 0
    for seed in range(6):
        plain = fake(seed, 4, 16, 200)
        eliminations = Uneven(plain.sigma, 1e-12, plain.generator, often=0.01)
        still_open += int(apart(searched(eliminations, [0.1, 0.03, 0.01], 0.0), 0.0).sum())
    assert not still_open


def test_thresholds_of_all_ratios_are_shared() -> None:
    """A count at one ratio bounds those of the others, so a second ratio right beside the first adds little."""
    one, two = fake(6, 3, 16, 80), fake(6, 3, 16, 80)
    searched(one, [0.1], 0.0)
    searched(two, [0.1, 0.1001], 0.0)
    assert len(two.evaluated) < 1.6 * len(one.evaluated)


@pytest.mark.parametrize("seed", range(8))
def test_every_evaluation_bounds_every_position(seed):
    # Also positions whose bounds were as close as requested before others of their group needed more.
    eliminations, ratios = fake(seed, 1, 8, 200), [1e-1, 1e-2, 1e-3]
    known = searched(eliminations, ratios, 0.1)
    tau = torch.tensor(eliminations.evaluated, dtype=torch.float64)
    count = (eliminations.sigma[0, :, None] > tau[:, None]).sum(-1).numpy()
    doubt = 2 * eliminations.distance
    for rho, lower, upper in zip(ratios, known.lower[:, 0], known.upper[:, 0], strict=True):
        is_above = tau.numpy() * (1 - doubt) >= rho * known.high[0, :, None]
        is_below = tau.numpy() * (1 + doubt) <= rho * known.low[0, :, None]
        assert (lower >= np.where(is_above, count, 0).max(-1)).all()
        assert (upper <= np.where(is_below, count, 200).min(-1)).all()
