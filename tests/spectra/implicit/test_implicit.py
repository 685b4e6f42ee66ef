"""Long attention by products, against all singular values."""

import pytest
import torch

from statesize.measurement.measurement import Measurement, measure
from statesize.operators import Dense, Shared, SoftmaxAttention
from statesize.spectra.cut import make_cut
from statesize.spectra.dispatch import choose_engine, with_readouts
from statesize.spectra.implicit.implicit import ImplicitEngine


def attention(length: int, width: int, seed: int, sharpness: float = 1.0) -> SoftmaxAttention:
    g = torch.Generator().manual_seed(seed)
    query, key = (torch.randn(length, width, generator=g, dtype=torch.float64) for _ in range(2))
    return SoftmaxAttention(query, key, sharpness * width**-0.5)


def held(found: Measurement, exact: Measurement) -> list[tuple[bool, bool, bool]]:
    """For each position, whether entropy, counts and relative counts lie where they are said to lie."""
    close = (found.entropy - exact.entropy).abs() <= found.entropy_bound + exact.entropy_bound
    absolute = ((found.lower <= exact.upper) & (exact.lower <= found.upper)).all(-1)
    relative = ((found.relative_lower <= exact.relative_upper) & (exact.relative_lower <= found.relative_upper)).all(-1)
    return list(zip(close.tolist(), absolute.tolist(), relative.tolist(), strict=True))


@pytest.mark.parametrize(("width", "sharpness"), [(32, 1.0), (8, 3.0)])
def test_intervals_hold_and_are_close(width: int, sharpness: float) -> None:
    operator = attention(700, width, 0, sharpness)
    asked = {"tolerances": (0.05, 1e-2), "relative_tolerances": (0.1, 1e-2), "positions": 6}
    found, exact = (measure(operator, engine=name, **asked) for name in ("implicit", "dense"))
    assert found.engine.startswith("implicit (95%")
    assert exact.converged.all()
    assert not found.converged[1:-1].any()
    assert not measure(operator, engine="implicit", outputs=["entropy"], positions=[350]).converged
    assert all(all(row) for row in held(found, exact))
    assert (found.entropy_bound <= 0.1 * found.entropy).all()
    torch.testing.assert_close(found.norm, exact.norm, rtol=1e-12, atol=0)
    assert (found.upper - found.lower <= 0.7 * 350).all()


def group(length: int, width: int, seed: int, readouts: int = 3, window: int | None = None) -> Shared:
    g = torch.Generator().manual_seed(seed)
    query, key = (torch.randn(heads, length, width, generator=g, dtype=torch.float64) for heads in (readouts, 1))
    return Shared(SoftmaxAttention(2 * query, key, width**-0.5, window))


# Before 420 the columns are the smaller side of a stack of three, behind it the rows.
@pytest.mark.parametrize("window", [None, 90])
def test_intervals_of_groups_hold(window: int | None) -> None:
    operator = group(560, 16, 4, window=window)
    asked = {"tolerances": (0.05, 1e-2), "relative_tolerances": (0.1, 1e-2), "positions": [60, 280, 419, 421, 500, 550]}
    found, exact = (measure(operator, engine=name, **asked) for name in ("implicit", "dense"))
    assert found.engine.startswith("implicit (95%")
    assert all(all(row) for row in held(found, exact))
    assert (found.entropy_bound <= 0.1 * found.entropy).all()
    torch.testing.assert_close(found.norm, exact.norm, rtol=1e-12, atol=0)
    assert torch.equal(found.ceiling, exact.ceiling)


def test_groups_of_other_operators_are_left_to_others() -> None:
    dense = Shared(Dense(torch.eye(4, dtype=torch.float64)[None]))
    assert not ImplicitEngine().supports(dense)
    # A block of three T of 10,500 positions takes more than 2 GiB with its copies.
    stacked, cut = with_readouts(group(10_500, 4, 0), make_cut(10_500, 4))
    assert choose_engine(stacked, cut, ("entropy",)).name == "implicit"


def test_only_long_attention_is_left_to_it() -> None:
    """At 17,000 positions, the largest of four blocks takes more than 2 GiB with its copies; small ones do not."""
    for length, positions, name in ((700, 4, "exact"), (17_000, 4, "implicit"), (17_000, [200, 16_000], "exact")):
        operator = attention(length, 32, 0)
        assert choose_engine(operator, make_cut(length, positions), ("entropy",)).name == name


@pytest.mark.parametrize(("length", "width"), [(40, 2), (200, 4)])
def test_thresholds_below_the_error_leave_all_counts_open(length: int, width: int) -> None:
    for seed in range(5):
        operator, ratios = attention(length, width, seed, 0.2), (1e-9, 1e-11, 1e-12)
        asked = {"tolerances": ratios, "relative_tolerances": ratios, "positions": [length // 2]}
        found, exact = (measure(operator, engine=name, **asked) for name in ("implicit", "dense"))
        assert bool((found.upper == length // 2).all())
        assert bool((found.relative_upper == length // 2).all())
        assert bool((found.relative_lower <= exact.relative_upper).all())
        assert not found.converged.any()
