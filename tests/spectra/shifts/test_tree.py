import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from oracles.agreement import RATIOS, agree

from statesize.operators import Convolution, Dense, Operator, SoftmaxAttention
from statesize.spectra.cut import Cut, make_cut
from statesize.spectra.exact.dense import DenseEngine
from statesize.spectra.shifts.position_tree import PositionTreeEngine
from statesize.spectra.shifts.tree import plant_tree

# Several levels already at the lengths that a test can afford.
TREE = PositionTreeEngine(leaf=4)


def attention(seed: int, length: int, sharpness: float, batch: tuple[int, ...] = ()) -> SoftmaxAttention:
    g = torch.Generator().manual_seed(seed)
    query, key = (torch.randn(*batch, length, 8, generator=g, dtype=torch.float64) for _ in range(2))
    return SoftmaxAttention(query, key, sharpness)


def check(operator: Operator, cut: Cut) -> None:
    agree(TREE.blocks(operator, cut), DenseEngine().blocks(operator, cut))


@given(st.integers(0, 2**31), st.integers(2, 40), st.sampled_from((0.02, 0.3, 3.0)))
def test_attention_agrees_with_the_definition(seed: int, length: int, sharpness: float) -> None:
    check(attention(seed, length, sharpness), make_cut(length))


@given(st.integers(0, 2**31), st.integers(2, 40), st.integers(1, 6))
def test_low_rank_agrees_with_the_definition(seed: int, length: int, rank: int) -> None:
    g = torch.Generator().manual_seed(seed)
    left, right = (torch.randn(length, rank, generator=g, dtype=torch.float64) for _ in range(2))
    check(Dense((left @ right.mT).tril()), make_cut(length))


@pytest.mark.parametrize("length", [3, 16, 33, 64])
def test_other_operators(length: int) -> None:
    g = torch.Generator().manual_seed(0)
    check(Convolution(torch.randn(2, 9, generator=g, dtype=torch.float64), length), make_cut(length))
    check(Dense(torch.eye(length, dtype=torch.float64)), make_cut(length))
    check(Dense(torch.ones(length, length, dtype=torch.float64).tril()), make_cut(length))
    check(SoftmaxAttention(torch.zeros(length, 2).double(), torch.zeros(length, 2).double(), 1.0, 3), make_cut(length))


def test_batches_and_chosen_positions() -> None:
    operator = attention(1, 37, 0.3, batch=(2, 3))
    check(operator, make_cut(37, [36, 1, 18, 19]))
    assert TREE.blocks(operator[:0], make_cut(37)).counts(RATIOS).count.shape == (0, 3, 36, 5)


@pytest.mark.parametrize("sharpness", [0.02, 0.5])
def test_inertia_is_exact_within_the_stated_distance(sharpness: float) -> None:
    # Shifts beside singular values, small ones included, where round-off decides on which side they fall.
    matrix = attention(3, 48, sharpness).dense()[None]
    tree = plant_tree(matrix, 4)
    expected = DenseEngine().blocks(Dense(matrix[0]), make_cut(48)).values
    for sigma in expected[[5, 20, 33]][expected[[5, 20, 33]] > 1e-9]:
        for beside in (0, 1e-12, -1e-12, 1e-10, -1e-10, 1e-8, -1e-8):
            tau = float(sigma) * (1 + beside)
            found, distance = tree.counts(torch.tensor([tau], dtype=torch.float64))
            found, slack = found[0, 1:48], distance[0, 1:48, None] + 1e-15
            assert bool((found <= (expected > tau - slack).sum(-1)).all())
            assert bool((found >= (expected > tau + slack).sum(-1)).all())


def test_log_determinants() -> None:
    matrix = attention(4, 41, 0.5).dense()[None]
    expected = DenseEngine().blocks(Dense(matrix[0]), make_cut(41)).values
    for s in (1.0, 1e-2, 1e-5):
        found = plant_tree(matrix, 4).log_determinants(torch.tensor([s], dtype=torch.float64))[0, 1:41]
        torch.testing.assert_close(found, torch.log1p((expected / s) ** 2).sum(-1), rtol=1e-9, atol=1e-9)
