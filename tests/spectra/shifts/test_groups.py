"""Counts by bisection hold their invariant, whatever an elimination answers within its stated uncertainty."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from statesize.spectra.cut import make_cut
from statesize.spectra.shifts.groups import Groups

WIDTH, LENGTH, RANK = 8, 24, 4


@dataclass(frozen=True)
class FakeEliminations:
    """Groups of positions whose singular values are known, counted at a threshold that is off at random.

    Attributes:
        values: σ of each position, (N, b, r).
        uncertainty: By how much the threshold of an evaluation may be off, relative to the shift.
        error: How far what is eliminated lies from the values, (N,).
        generator: What is random of it.
        asked: Positions at which singular values were asked.
        share: How much of σ_1 its lower bound is.
    """

    values: Tensor
    uncertainty: float
    error: Tensor
    generator: torch.Generator
    asked: list[tuple[int, int]] = field(default_factory=list)
    shifts: list[Tensor] = field(default_factory=list)
    width: int = WIDTH
    order: int = WIDTH + RANK
    summed_error: None = None
    ranks: None = None
    evaluations_per_spectrum: int = 2
    share: float = 0.7

    def at(self, index: Tensor) -> FakeEliminations:
        return replace(self, values=self.values[index], error=self.error[index])

    def random(self, *shape: int) -> Tensor:
        return 2 * torch.rand(*shape, generator=self.generator, dtype=torch.float64) - 1

    def counts(self, shift: Tensor) -> tuple[Tensor, Tensor]:
        self.shifts.append(shift)
        uncertainty = self.uncertainty * shift[:, None].expand(self.values.shape[:2])
        threshold = shift[:, None] + self.random(*uncertainty.shape) * uncertainty
        off = self.values + self.random(*self.values.shape) * self.error[:, None, None]
        return (off > threshold[..., None]).sum(-1), uncertainty

    def squared_norms(self) -> Tensor:
        return self.values.square().sum(-1)

    def are_zero(self) -> Tensor:
        return self.squared_norms() == 0

    def norm_bound(self) -> Tensor:
        return 2 * self.values.amax((-2, -1))

    def largest(self) -> tuple[Tensor, Tensor]:
        return self.share * self.values.amax(-1), torch.full(self.values.shape[:2], torch.inf, dtype=torch.float64)

    def log_determinants(self, shift: Tensor) -> Tensor:
        return torch.log1p((self.values / shift[:, None, None]) ** 2).sum(-1)

    def spectra(self, group: Tensor, offset: Tensor) -> Tensor:
        self.asked.extend(zip(group.tolist(), offset.tolist(), strict=True))
        return self.values[group, offset]


def fake(seed: int, uncertainty: float, error: float, rounds: int) -> tuple[FakeEliminations, Groups]:
    g = torch.Generator().manual_seed(seed)
    # Spectra over six decades, with equal values and with zeros.
    values = 10 ** (-6 * torch.rand(LENGTH // WIDTH, WIDTH, RANK, generator=g, dtype=torch.float64))
    values[:, ::3, 1] = values[:, ::3, 0]
    values[0, 5] = 0
    position = torch.arange(LENGTH).reshape(-1, WIDTH)
    limit = torch.minimum(position, LENGTH - position).clamp(0, RANK)
    values = values.sort(-1, descending=True).values
    values = values.masked_fill(torch.arange(RANK) >= limit[..., None], 0)
    errors = torch.full((LENGTH // WIDTH,), error, dtype=torch.float64)
    eliminations = FakeEliminations(values, uncertainty, errors, g)
    groups = Groups(eliminations, torch.Size(()), make_cut(LENGTH), RANK, 2**21)
    groups.rounds = rounds
    return eliminations, groups


seeds, uncertainties = st.integers(0, 2**31), st.sampled_from((1e-12, 1e-6, 1e-2, 0.4))


@given(seeds, uncertainties, st.sampled_from((0.0, 1e-9, 1e-4)), st.sampled_from((1e-5, 1e-3, 0.3)))
def test_exact_counts_lie_between_the_bounds_after_every_step(seed, uncertainty, error, tau):
    before = None
    for rounds in range(18):
        fakes, groups = fake(seed, uncertainty, error, rounds)
        threshold = torch.full((LENGTH // WIDTH, WIDTH), tau, dtype=torch.float64)
        exact = (fakes.values > tau).sum(-1)
        lower, upper = groups.bisect(threshold[:, 0])
        assert bool(((lower <= exact) & (exact <= upper)).all())
        assert len(fakes.shifts) <= rounds
        if before is not None:
            # The first evaluations are the same for the same seed, and bounds only close in.
            assert bool((lower >= before[0]).all())
            assert bool((upper <= before[1]).all())
        before = lower, upper


@given(seeds, uncertainties, st.sampled_from((0.0, 1e-9)), st.sampled_from((1e-5, 1e-3, 0.3)))
def test_every_position_is_resolved_by_evaluations_or_by_singular_values(seed, uncertainty, error, tau):
    fakes, groups = fake(seed, uncertainty, error, 2 * WIDTH + 2)
    threshold = torch.full((LENGTH // WIDTH, WIDTH), tau, dtype=torch.float64)
    lower, upper = groups.bisect(threshold[:, 0])
    left = groups.wanted & (lower != upper)
    unresolved = groups.wanted & (lower < upper) & ~fakes.are_zero()
    unresolved = {tuple(at) for at in unresolved.nonzero().tolist()}
    before = lower.clone(), upper.clone()
    given = torch.tensor([tau], dtype=torch.float64), lower[None], upper[None], left[None]
    count, lower, upper = (part[0] for part in groups.resolve(*given))
    # What bisection was sure of is not given up for what singular values say with an error.
    assert bool(((lower >= before[0]) & (upper <= before[1]) & (lower <= count) & (count <= upper)).all())
    assert set(fakes.asked) == unresolved
    assert bool(((lower <= (fakes.values > tau).sum(-1)) & ((fakes.values > tau).sum(-1) <= upper)).all())
    # Bounds stay apart only where a singular value lies within the error of the threshold.
    near = ((fakes.values - tau).abs() <= groups.own_error[..., None]).any(-1) | (tau < groups.own_error)
    assert bool((lower == upper)[~near].all())
    assert bool((count == (fakes.values > tau).sum(-1))[~near & groups.wanted].all())


def test_singular_values_of_a_position_serve_all_thresholds():
    # Evaluations that are so uncertain decide nothing.
    fakes, groups = fake(3, 0.9, 0.0, 0)
    thresholds = torch.tensor([1e-1, 1e-2, 1e-3, 1e-4], dtype=torch.float64)
    count, _, _ = groups.counts(thresholds)
    assert len(fakes.asked) == len(set(fakes.asked)) > LENGTH // 2
    exact = (fakes.values > thresholds[:, None, None, None]).sum(-1)
    assert bool((count == exact)[:, groups.wanted].all())


@given(seeds, uncertainties)
def test_no_value_is_above_the_bounds_of_a_scale(seed, uncertainty):
    fakes, groups = fake(seed, uncertainty, 0.0, 2 * WIDTH + 2)
    assert bool((fakes.values.amax(-1) <= groups.above_all(groups.wanted))[groups.wanted].all())


@pytest.mark.parametrize(("cost", "asked"), [(2, [(20, 3)]), (1000, [])])
def test_few_positions_are_left_to_another_scale_where_singular_values_cost_more(cost, asked):
    position = torch.arange(40 * WIDTH).reshape(-1, WIDTH, 1)
    limit = torch.minimum(position, 40 * WIDTH - position)
    values = torch.where(torch.arange(RANK) < limit, 0.5 ** torch.arange(RANK, dtype=torch.float64), 0.0)
    # So small beside its group that the first shifts say nothing of it.
    values[20, 3] *= 1e-9
    errors = torch.zeros(40, dtype=torch.float64)
    fakes = FakeEliminations(values, 1e-12, errors, torch.Generator(), evaluations_per_spectrum=cost, share=0.99)
    groups = Groups(fakes, torch.Size(()), make_cut(40 * WIDTH), RANK, 2**21)
    entropy, bound = groups.entropies(1e-3)
    assert fakes.asked == asked
    p = values / values.sum(-1, keepdim=True).clamp(min=1e-300)
    exact = torch.exp(-torch.xlogy(p, p).sum(-1))
    assert bool(((entropy - exact).abs() <= bound)[groups.wanted].all())


@pytest.mark.parametrize("accuracy", [1e-2, 1e-4])
def test_entropies_within_their_bounds(accuracy):
    fakes, groups = fake(0, 1e-6, 0.0, 2 * WIDTH + 2)
    entropy, bound = groups.entropies(accuracy)
    p = fakes.values / fakes.values.sum(-1, keepdim=True).clamp(min=1e-300)
    exact = torch.where(fakes.values.sum(-1) > 0, torch.exp(-torch.xlogy(p, p).sum(-1)), 0)
    assert bool(((entropy - exact).abs() <= bound)[groups.wanted].all())
    assert bool((bound <= accuracy * entropy)[groups.wanted].all())
