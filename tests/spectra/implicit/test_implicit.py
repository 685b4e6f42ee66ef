"""Long attention by products, of heads and of groups, against all singular values."""

import pytest
import torch
from oracles.draws import normal

from statesize.measurement.measurement import measure
from statesize.operators import Dense, Shared, SoftmaxAttention
from statesize.spectra.cut import make_cut
from statesize.spectra.dispatch import choose_engine, with_readouts
from statesize.spectra.implicit.implicit import ImplicitEngine


def attention(length: int, width: int, seed: int, sharpness: float = 1.0) -> SoftmaxAttention:
    query, key = normal(2, length, width, seed=seed)
    return SoftmaxAttention(query, key, sharpness * width**-0.5)


def group(length: int, width: int, seed: int, readouts: int = 3, window: int | None = None) -> Shared:
    g = torch.Generator().manual_seed(seed)
    query, key = (torch.randn(heads, length, width, generator=g, dtype=torch.float64) for heads in (readouts, 1))
    return Shared(SoftmaxAttention(2 * query, key, width**-0.5, window))


@pytest.mark.parametrize(
    ("operator", "positions"),
    [
        (attention(700, 32, 0), 6),
        (attention(700, 8, 0, 3.0), 6),
        # Before 420 the columns are the smaller side of a stack of three, behind it the rows.
        *((group(560, 16, 4, window=window), [60, 280, 419, 421, 500, 550]) for window in (None, 90)),
    ],
)
def test_intervals_hold_and_are_close(operator, positions) -> None:
    asked = {"tolerances": (0.05, 1e-2), "relative_tolerances": (0.1, 1e-2), "positions": positions}
    found, exact = (measure(operator, engine=name, **asked) for name in ("implicit", "dense"))
    assert found.engine.startswith("implicit (95%")
    assert exact.converged.all()
    assert not found.converged[1:-1].any()
    assert ((found.entropy - exact.entropy).abs() <= found.entropy_bound + exact.entropy_bound).all()
    for lower, upper in (("lower", "upper"), ("relative_lower", "relative_upper")):
        assert (getattr(found, lower) <= getattr(exact, upper)).all()
        assert (getattr(exact, lower) <= getattr(found, upper)).all()
    assert (found.entropy_bound <= 0.1 * found.entropy).all()
    torch.testing.assert_close(found.norm, exact.norm, rtol=1e-12, atol=0)
    assert torch.equal(found.ceiling, exact.ceiling)
    if isinstance(operator, SoftmaxAttention):
        assert (found.upper - found.lower <= 0.7 * 350).all()
        assert not measure(operator, engine="implicit", outputs=["entropy"], positions=[350]).converged


def test_only_long_attention_is_left_to_it() -> None:
    """Where the largest of four blocks takes more than 2 GiB with its copies; small ones do not."""
    for length, positions, name in ((700, 4, "exact"), (17_000, 4, "implicit"), (17_000, [200, 16_000], "exact")):
        assert choose_engine(attention(length, 32, 0), make_cut(length, positions), ("entropy",)).name == name
    stacked, cut = with_readouts(group(10_500, 4, 0), make_cut(10_500, 4))
    assert choose_engine(stacked, cut, ("entropy",)).name == "implicit"
    assert not ImplicitEngine().supports(Shared(Dense(torch.eye(4, dtype=torch.float64)[None])))


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
