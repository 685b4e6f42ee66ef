"""Blocks that are zero or of low rank, and numbers whose powers leave the range of those that hold them."""

import pytest
import torch
from oracles.draws import normal

from statesize import Dense, Recurrence, SoftmaxAttention, measure
from statesize.measurement.settings import TOLERANCE_LADDER

LENGTH = 80


def noise(size, scale, corner=None):
    matrix = scale * normal(size, size, seed=0).tril(-1)
    if corner is not None:
        matrix[1, 0] = corner
    return matrix


@pytest.mark.parametrize("engine", ["all_cuts", "exact"])
@pytest.mark.parametrize(
    "matrix",
    [
        noise(64, 1e-85),
        noise(64, 1e-90, 1.0),
        noise(64, 10**-81.5),
        noise(96, 1e-23, 1.0).abs(),
        noise(64, 1e-70, 1e99),
    ],
    ids=["small", "beside one entry", "for powers of four", "for single precision", "beside a huge entry"],
)
def test_bounds_hold_the_counts_of_small_numbers(matrix, engine):
    ratios, tau = (0.3, 0.1, 0.01), 5e-71
    found = measure(Dense(matrix), (tau,), ratios, outputs=("counts",), engine=engine, positions=12)
    for place, i in enumerate(found.positions.tolist()):
        block = matrix[i:, :i]
        scale = block.abs().amax()
        values = torch.linalg.svdvals(block / scale) * scale
        relative = torch.tensor([int((values > ratio * values[0]).sum()) for ratio in ratios])
        assert bool((found.relative_lower[place] <= relative).all())
        assert bool((relative <= found.relative_upper[place]).all())
        assert found.lower[place, 0] <= int((values > tau).sum()) <= found.upper[place, 0]


def hidden_attention():
    """Attention whose later keys outweigh the earlier ones by e^400, so that squares of its block are 0."""
    query, key = normal(2, LENGTH, 8, seed=0)
    bias = torch.zeros(LENGTH, dtype=torch.float64)
    bias[LENGTH // 2 :] = 400.0
    return SoftmaxAttention(query, key, 0.3, key_bias=bias)


BESIDE_A_DIAGONAL = Dense(torch.eye(LENGTH, dtype=torch.float64) + noise(LENGTH, 1e-170))


@pytest.mark.parametrize("operator", [hidden_attention(), BESIDE_A_DIAGONAL])
@pytest.mark.parametrize("outputs", [("counts",), ("entropy",), ("counts", "entropy")])
def test_a_block_whose_squares_vanish_is_decomposed(operator, outputs):
    asked = {"positions": [40], "relative_tolerances": [0.01], "outputs": outputs}
    found, exact = (measure(operator, engine=name, **asked) for name in ("exact", "dense"))
    if "counts" in outputs:
        assert found.relative_count.equal(exact.relative_count)
        assert exact.relative_count > 1
    if "entropy" in outputs:
        assert bool((found.entropy - exact.entropy).abs() <= found.entropy_bound + exact.entropy_bound)
        assert exact.entropy > 1


def with_zeros():
    """Operators of two heads each that are zero in places."""
    drawn, (query, key) = normal(2, LENGTH, LENGTH, seed=0).tril(), normal(2, LENGTH, 4, seed=1)
    one_zero, part = drawn.clone(), torch.arange(LENGTH) // 16
    one_zero[0] = torch.eye(LENGTH)
    return {
        "only itself": SoftmaxAttention(query, key, scale=1.0, window=1),
        "blocks": Dense(drawn * (part[:, None] == part)),
        "one of two": Dense(one_zero),
        "nothing stored": Recurrence(torch.full_like(query, 0.9), torch.zeros_like(query), key),
    }


@pytest.mark.parametrize(
    ("engine", "name"),
    [*((engine, name) for engine in ("all_cuts", "exact") for name in with_zeros()), ("implicit", "only itself")],
)
def test_blocks_of_zeros_hold_nothing(engine, name):
    """All bounds hold what the definition says."""
    operator, asked = with_zeros()[name], {"relative_tolerances": TOLERANCE_LADDER}
    measured, expected = (measure(operator, engine=each, **asked) for each in (engine, "dense"))
    zero = expected.norm == 0
    assert bool(zero.any())
    assert not any(part[zero].any() for part in (measured.relative_count, measured.count, measured.entropy))
    assert bool((measured.relative_lower <= expected.relative_count).all())
    assert bool((measured.relative_upper >= expected.relative_count).all())


def folded():
    """Decays within keys and queries, so that what a state holds is far larger than what is read of it."""
    time, rate = torch.arange(330, dtype=torch.float64)[:, None], torch.linspace(0.9, 1, 20, dtype=torch.float64)
    key, query = normal(2, 330, 20, seed=0)
    return Recurrence(torch.ones(330, 1, dtype=torch.float64), key * rate**-time, query * rate**time)


def late_keys():
    """Attention whose blocks are far below the round-off of what they are summed of."""
    time, late = torch.linspace(0, 1, 800, dtype=torch.float64), torch.arange(800, dtype=torch.float64) - 400
    query = torch.stack([torch.sin(3 * time), torch.cos(3 * time), torch.sin(7 * time), torch.cos(7 * time)], -1)
    return SoftmaxAttention(query, query, 1.0, key_bias=torch.where(late > 0, 25 * late, 0))


@pytest.mark.parametrize(("make", "positions"), [(folded, None), (late_keys, [500])])
@pytest.mark.parametrize("engine", ["auto", "all_cuts"])
def test_nothing_is_known_of_entropy_below_the_error(make, positions, engine):
    """Where σ_1 ≤ δ, ESS is stated as 0, and its bound leaves room for every other value."""
    found, exact = (measure(make(), positions=positions, engine=name, outputs="entropy") for name in (engine, "dense"))
    assert bool(((found.entropy - exact.entropy).abs() <= found.entropy_bound + exact.entropy_bound).all())
