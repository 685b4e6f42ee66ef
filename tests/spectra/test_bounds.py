import mpmath
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from oracles.exact import exact_singular_values
from oracles.operators import random_recurrence

from statesize.measurement.measurement import measure
from statesize.measurement.metrics import entropy_ess
from statesize.operators import Recurrence
from statesize.spectra.spectrum import Spectrum, entropy_bound


@given(seed=st.integers(0, 2**31), r=st.integers(1, 12), decades=st.integers(-12, -1), adversary=st.booleans())
def test_entropy_stays_within_its_bound(seed: int, r: int, decades: int, adversary: bool) -> None:
    g = torch.Generator().manual_seed(seed)
    values = 10.0 ** (-6 * torch.rand(20, r, generator=g, dtype=torch.float64))
    values = values.sort(-1, descending=True).values
    error = torch.full((20,), 10.0**decades, dtype=torch.float64)
    noise = torch.rand(20, r, generator=g, dtype=torch.float64) * 2 - 1
    other = (values + error[:, None] * (noise.sign() if adversary else noise)).clamp(min=0)
    moved = (entropy_ess(other) - entropy_ess(values)).abs()
    alive = values[:, 0] > error
    assert bool((moved <= entropy_bound(values, error, entropy_ess(values)) * (1 + 1e-9) + 1e-12)[alive].all())


def test_the_entropy_bound_vanishes_with_the_error_and_of_no_values() -> None:
    values, error = torch.tensor([1.0, 0.5, 0.1], dtype=torch.float64), torch.tensor([0.0, 1e-12], dtype=torch.float64)
    exact, close = (float(entropy_bound(values, one, entropy_ess(values))) for one in error)
    assert (exact, 0 < close < 1e-9) == (0, True)
    assert entropy_bound(torch.zeros(4, 0), torch.zeros(4), torch.zeros(4)).tolist() == [0] * 4


def test_counts_are_bracketed_by_what_the_error_allows() -> None:
    block = Spectrum(torch.tensor([[3.0, 1.05, 0.95, 0.1]]), torch.tensor([0.1]), torch.tensor([9]))
    found = block.counts(torch.tensor([1.0, 0.05]))
    # At τ = 0.05 < δ, any of the block's nine singular values may be above it.
    assert [part.tolist() for part in (found.count, found.lower, found.upper)] == [[[2, 4]], [[1, 3]], [[3, 9]]]
    # A threshold of ½ σ_1 is itself off by ½ δ.
    for apart, expected in ((0.14, [2, 1, 3]), (0.16, [2, 2, 2])):
        found = Spectrum(torch.tensor([[4.0, 2 + apart, 2 - apart]]), torch.tensor([0.1]), torch.tensor([3]))
        counts = found.relative_counts(torch.tensor([0.5]))
        assert [int(part) for part in (counts.count, counts.lower, counts.upper)] == expected
    # No upper bound passes the block.
    block = Spectrum(torch.ones(1, 3), torch.tensor([0.1]), torch.tensor([2]))
    assert block.counts(torch.tensor([0.5])).upper.tolist() == [[2]]


@pytest.mark.parametrize("past", [None, 3])
@pytest.mark.parametrize("engine", ["dense", "exact"])
def test_bounds_hold_among_denormals(engine: str, past: int | None) -> None:
    # Numbers of few digits, products that are rounded to 0, and a C that makes much of what was lost in A B.
    base = random_recurrence("diagonal", 3, 12, 3)
    recurrence = Recurrence(base.A, base.B * 1e-316, base.C)
    found = measure(recurrence, outputs=("values", "entropy"), positions=[6], past=past, engine=engine)
    assert found.values is not None
    assert found.entropy is not None
    exact = exact_singular_values(recurrence, 6, past)
    error = max(abs(mpmath.mpf(float(s)) - true) for s, true in zip(found.values[0], exact, strict=False))
    assert 0 < error <= float(found.error_bound[0])
    assert float(found.entropy[0]) == 0
