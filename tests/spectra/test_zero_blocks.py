"""Blocks that are exactly zero, at many tolerances."""

import pytest
import torch

from statesize import Dense, Recurrence, SoftmaxAttention, measure
from statesize.measurement.settings import TOLERANCE_LADDER

LENGTH = 80


def _operators():
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randn(2, LENGTH, LENGTH, generator=generator, dtype=torch.float64).tril()
    blocks = drawn.clone()
    for border in range(16, LENGTH, 16):
        blocks[:, border:, :border] = 0
    one_zero = drawn.clone()
    one_zero[0] = torch.eye(LENGTH)
    query, key = torch.randn(2, LENGTH, 4, generator=generator, dtype=torch.float64)
    return {
        "zero": Dense(torch.zeros_like(drawn)),
        "diagonal": Dense(torch.diag_embed(drawn[:, 0])),
        "only itself": SoftmaxAttention(query, key, scale=1.0, window=1),
        "blocks": Dense(blocks),
        "one of two": Dense(one_zero),
    }


@pytest.mark.parametrize("engine", ["all_cuts", "exact"])
@pytest.mark.parametrize("name", _operators())
def test_blocks_of_zeros_hold_nothing(name, engine):
    """All bounds hold what the definition says."""
    operator = _operators()[name]
    measured = measure(operator, relative_tolerances=TOLERANCE_LADDER, engine=engine)
    expected = measure(operator, relative_tolerances=TOLERANCE_LADDER, engine="dense")
    zero = torch.isclose(expected.norm, torch.zeros_like(expected.norm), atol=0)
    assert bool(zero.any())
    assert not measured.relative_count[zero].any()
    assert not measured.count[zero].any()
    assert not measured.entropy[zero].any()
    assert bool((measured.relative_lower <= expected.relative_count).all())
    assert bool((measured.relative_upper >= expected.relative_count).all())


def test_nothing_is_known_of_entropy_below_the_error():
    """Where σ_1 ≤ δ, ESS is stated as 0, and its bound leaves room for every other value."""
    n, length = 20, 330
    generator, time = torch.Generator().manual_seed(0), torch.arange(length, dtype=torch.float64)[:, None]
    key, query = torch.randn(2, length, n, generator=generator, dtype=torch.float64)
    rate = torch.linspace(0.9, 1, n, dtype=torch.float64)
    # Decays within keys and queries, so that what a state holds is far larger than what is read of it.
    folded = Recurrence(A=torch.ones(length, 1, dtype=torch.float64), B=key * rate**-time, C=query * rate**time)
    for engine in ("auto", "all_cuts"):
        found, exact = (measure(folded, engine=name, outputs="entropy") for name in (engine, "dense"))
        assert bool(((found.entropy - exact.entropy).abs() <= found.entropy_bound + exact.entropy_bound).all())


def test_nothing_is_known_of_entropy_below_the_error_of_attention():
    length = 800
    time = torch.linspace(0, 1, length, dtype=torch.float64)
    query = torch.stack([torch.sin(3 * time), torch.cos(3 * time), torch.sin(7 * time), torch.cos(7 * time)], -1)
    late = torch.arange(length, dtype=torch.float64) - length // 2
    operator = SoftmaxAttention(query, query, 1.0, key_bias=torch.where(late > 0, 25 * late, 0))
    found, exact = (
        measure(operator, outputs="entropy", engine=engine, positions=[500]) for engine in ("all_cuts", "dense")
    )
    assert abs(found.entropy - exact.entropy) <= found.entropy_bound + exact.entropy_bound
