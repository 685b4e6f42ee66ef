"""Intervals of the entropy-ESS against all singular values, and the functional behind them."""

import math
from collections.abc import Callable

import mpmath
import pytest
import torch
from torch import Tensor

from statesize.spectra.implicit.entropy_estimate import EntropyEstimate, entropy_parts
from statesize.spectra.spectrum import effective_rank

Draw = Callable[[int, torch.Generator], Tensor]


def uniform(n: int, g: torch.Generator) -> Tensor:
    return torch.rand(n, generator=g, dtype=torch.float64)


def steps(n: int) -> Tensor:
    return torch.arange(n, dtype=torch.float64)


SPECTRA: dict[str, Draw] = {
    "flat": uniform,
    "decaying": lambda n, g: torch.exp(-0.2 * uniform(1, g) * steps(n)),
    "power": lambda n, g: (1 + steps(n)) ** (-2 * uniform(1, g)),
    "of low rank": lambda n, g: torch.cat([uniform(n // 8, g), torch.zeros(n - n // 8, dtype=torch.float64)]),
    "graded": lambda n, g: 10 ** (-12 * uniform(n, g)),
    "one large": lambda n, g: torch.cat([torch.tensor([float(n)], dtype=torch.float64), uniform(n - 1, g)]),
    "more equal ones than probes": lambda n, g: torch.cat(
        [torch.ones(9, dtype=torch.float64), uniform(n - 9, g) / 1e3]
    ),
}


def estimated(sigma: Tensor, accuracy: float, seed: int, capacity: int = 10**6, **options) -> EntropyEstimate:
    """A = Diag(σ²): the probes are random, so that its eigenvectors need not be."""
    estimate = EntropyEstimate(sigma.shape[0], accuracy, capacity, seed=seed, **options)
    while not estimate.finished:
        estimate.advance(estimate.pending * sigma.square())
    return estimate


def coverage(name: str, accuracy: float, cases: int, smallest: int, largest: int, **options) -> tuple[float, float]:
    """How often the interval holds the exact value, and the median of its half width."""
    g = torch.Generator().manual_seed(7)
    holds, widths = 0, []
    for seed in range(cases):
        n = int(torch.randint(smallest, largest, (1,), generator=g))
        sigma = SPECTRA[name](n, g)
        estimate = estimated(sigma, accuracy, seed, **options)
        assert estimate.converged
        exact = float(effective_rank(sigma))
        holds += estimate.interval.low * (1 - 1e-12) <= exact <= estimate.interval.high * (1 + 1e-12)
        widths.append(estimate.interval.accuracy)
    return holds / cases, sorted(widths)[cases // 2]


QUICK = ("decaying", "of low rank", "one large", "more equal ones than probes")


@pytest.mark.few(2)
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in SPECTRA]
)
def test_intervals_hold_the_exact_value(name: str) -> None:
    held, width = coverage(name, 0.1, 30, 16, 200)
    assert held >= 0.93
    assert width <= 0.1


def test_without_room_the_interval_is_wide_and_true() -> None:
    sigma = torch.exp(-steps(500) / 100)
    for capacity in (20, 40, 80):
        estimate = estimated(sigma, 0.01, 3, capacity=capacity)
        assert not estimate.converged
        assert estimate.products <= capacity
        assert estimate.interval.low <= float(effective_rank(sigma)) <= estimate.interval.high


def test_scales_and_zeros() -> None:
    sigma = torch.exp(-steps(80) / 10)
    plain = estimated(sigma, 0.05, 1).interval
    scaled = estimated(1e40 * sigma, 0.05, 1).interval
    assert math.isclose(plain.middle, scaled.middle, rel_tol=1e-6)
    nothing = estimated(0 * sigma, 0.05, 1)
    assert nothing.converged
    assert (nothing.interval.low, nothing.interval.high) == (0.0, 0.0)


SIGMA = torch.tensor([0.0, 1e-300, 1e-9, 0.02, 0.3, 1.0, 1.7, 40.0, 1e9], dtype=torch.float64)


def test_the_parts_are_integrals_of_resolvents_and_their_difference_is_the_functional() -> None:
    c, sigma = 0.4, SIGMA[3:8]

    def integral(value: float, bounds: list) -> float:
        # With t = s², where the density (c − ½ ln t) / (π √t) has no pole.
        return float(
            mpmath.quad(lambda s: 2 / mpmath.pi * abs(c - mpmath.log(s)) * value**2 / (value**2 + s**2), bounds)
        )

    growing, falling = entropy_parts(sigma, c)
    edge = mpmath.exp(c)
    for part, bounds, close in (
        (growing, lambda value: [0, min(value, edge) / 10, edge], 1e-9),
        (falling, lambda value: [edge, 100, mpmath.inf], 1e-6),
    ):
        expected = torch.tensor([integral(value, bounds(value)) for value in sigma.tolist()], dtype=torch.float64)
        torch.testing.assert_close(part, expected, rtol=close, atol=0)
    for c in (-20.0, 0.0, 3.0):
        growing, falling = entropy_parts(SIGMA, c)
        assert (torch.minimum(growing, falling) >= 0).all()
        expected = c * SIGMA - torch.xlogy(SIGMA, SIGMA)
        torch.testing.assert_close(growing - falling, expected, rtol=1e-12, atol=1e-12 * float(growing.max()))
