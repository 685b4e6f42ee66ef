import math

import pytest
import torch

from statesize.spectra.shifts import quadrature
from statesize.spectra.shifts.quadrature import EntropyRule, entropies, entropy_rule, rules_from


@pytest.mark.parametrize("count", [12, 16, 20, 22, 26])
def test_stated_errors_hold_everywhere(count: int) -> None:
    rule = entropy_rule(count)
    # 20 times as many points as the errors are measured on.
    sigma = torch.cat([torch.zeros(1).double(), torch.logspace(-16, 0, 400_003, dtype=torch.float64)])
    basis = torch.cat([sigma[:, None] ** 2, torch.log1p((sigma[:, None] / rule.shifts) ** 2)], 1)
    slack = sigma + 1e-3
    assert bool(((basis @ rule.sigma - sigma).abs() <= rule.sigma_error * slack).all())
    assert bool(((basis @ rule.entropy - torch.xlogy(sigma, sigma)).abs() <= rule.entropy_error * slack).all())


def test_the_sum_of_singular_values_is_bounded_by_any_log_determinant() -> None:
    x = torch.logspace(-8, 8, 400_003, dtype=torch.float64)
    steepest = float((torch.log1p(x.square()) / x).max())
    assert 0.999 * quadrature._STEEPEST < steepest < quadrature._STEEPEST


def test_more_shifts_are_more_accurate() -> None:
    errors = [entropy_rule(count).expected_error(64) for count in (12, 16, 20, 22, 26)]
    assert errors == sorted(errors, reverse=True)
    assert [len(rule.shifts) for rule in rules_from(1e-2, 64)] == [12, 16, 20, 22, 26]
    assert [len(rule.shifts) for rule in rules_from(1e-12, 64)] == [26]


def test_entropy_of_known_spectra() -> None:
    sigma = torch.tensor([[1.0, 1.0, 0, 0], [0.9, 0.3, 1e-4, 0], [0.5, 0.25, 0.125, 1e-9]], dtype=torch.float64)
    rank = torch.tensor([[4], [4], [4]])
    for scale in (1e-30, 1.0, 1e30):
        values = sigma * scale
        found, bound = entropies(
            entropy_rule(22),
            2e-4,
            lambda at, shift, values=values: torch.log1p((values[at] / shift[:, None]) ** 2).sum(-1, keepdim=True),
            values.square().sum(-1, keepdim=True),
            torch.full((3,), scale, dtype=torch.float64),
            rank,
            rank,
            torch.zeros(3, 1, dtype=torch.float64),
        )
        p = sigma / sigma.sum(-1, keepdim=True)
        exact = torch.exp(-torch.xlogy(p, p).sum(-1))
        assert math.isclose(float(exact[0]), 2)
        assert bool(((found.squeeze(-1) - exact).abs() <= bound.squeeze(-1)).all())
        assert bool((bound.squeeze(-1) <= 3e-4 * exact).all())


def test_errors_of_a_rule_reach_its_bound() -> None:
    exact = entropy_rule(22)
    values = torch.tensor([[1.0, 0.5, 0.25, 0.1]], dtype=torch.float64)
    p = values / values.sum()
    truth = float(torch.exp(-torch.xlogy(p, p).sum()))
    for sigma, entropy in ((1.01, 1.0), (1.0, 1.01)):
        errors = (sigma - 1 + exact.sigma_error, entropy - 1 + exact.entropy_error)
        off = EntropyRule(exact.shifts, exact.sigma * sigma, exact.entropy * entropy, *errors)
        found, bound = entropies(
            off,
            2e-4,
            lambda _, shift: torch.log1p((values / shift[:, None]) ** 2).sum(-1, keepdim=True),
            values.square().sum(-1, keepdim=True),
            torch.ones(1, dtype=torch.float64),
            torch.tensor([[4]]),
            torch.tensor([[4]]),
            torch.zeros(1, 1, dtype=torch.float64),
        )
        assert 1e-3 < abs(float(found) - truth) <= float(bound)


def test_too_little_to_tell_is_said() -> None:
    _, bound = entropies(
        entropy_rule(12),
        1e-2,
        lambda _, shift: torch.zeros(1, 1, dtype=torch.float64),
        torch.zeros(1, 1, dtype=torch.float64),
        torch.ones(1, dtype=torch.float64),
        torch.tensor([[4]]),
        torch.tensor([[4]]),
        torch.zeros(1, 1, dtype=torch.float64),
    )
    assert math.isinf(float(bound))


@pytest.mark.parametrize("accuracy", [1e-2, 2e-4, 1e-6])
def test_shifts_that_tell_nothing_new_are_left_out(accuracy: float) -> None:
    # Spectra that end at a floor, from 1 down to below all shifts, flat, falling evenly, or in two groups.
    floor = torch.logspace(0, -10, 21, dtype=torch.float64)[:, None]
    even = torch.linspace(0, 1, 40, dtype=torch.float64)
    spectra = torch.stack([floor**even, floor + (1 - floor) * even, torch.where(even < 0.2, 1.0, floor)], 1)
    rank = torch.full((1, 1), 40)
    used: list[int] = []
    for values in spectra.flatten(0, 1):
        shifts: list[float] = []

        def log_determinants(
            _: torch.Tensor, shift: torch.Tensor, values: torch.Tensor = values, seen: list[float] = shifts
        ) -> torch.Tensor:
            seen.append(float(shift))
            return torch.log1p((values / shift[:, None]) ** 2).sum(-1, keepdim=True)

        found, bound = entropies(
            entropy_rule(22),
            accuracy,
            log_determinants,
            values.square().sum()[None, None],
            torch.ones(1, dtype=torch.float64),
            rank,
            rank,
            torch.zeros(1, 1, dtype=torch.float64),
        )
        p = values / values.sum()
        exact = torch.exp(-torch.xlogy(p, p).sum())
        assert abs(float(found) - float(exact)) <= float(bound)
        assert float(bound) <= max(accuracy, 3e-4) * float(exact)
        used.append(len(shifts))
    assert min(used) <= 7
    assert max(used) >= min(used) + 8


@pytest.mark.parametrize(("error", "finite"), [(0.29, True), (0.3, False), (0.5, False), (5.0, False)])
def test_errors_near_the_largest_value_leave_nothing_certain(error: float, finite: bool) -> None:
    _, bound = entropies(
        entropy_rule(22),
        1e-2,
        lambda _, shift: torch.log1p(shift.square().reciprocal())[:, None],
        torch.ones(1, 1, dtype=torch.float64),
        torch.ones(1, dtype=torch.float64),
        torch.tensor([[1]]),
        torch.tensor([[1]]),
        torch.full((1, 1), error, dtype=torch.float64),
    )
    assert math.isfinite(float(bound)) == finite
