from dataclasses import replace

import torch
from hypothesis import given
from hypothesis import strategies as st
from oracles.agreement import RATIOS

from statesize.operators import Dense, SoftmaxAttention
from statesize.spectra.cut import make_cut
from statesize.spectra.exact.dense import DenseEngine
from statesize.spectra.shifts.position_tree import PositionTreeEngine
from statesize.spectra.shifts.tree import plant_tree

# Several levels already at the lengths that a test can afford.
TREE = PositionTreeEngine(leaf=4)


def attention(seed: int, length: int, sharpness: float, batch: tuple[int, ...] = ()) -> torch.Tensor:
    g = torch.Generator().manual_seed(seed)
    query, key = (torch.randn(*batch, length, 8, generator=g, dtype=torch.float64) for _ in range(2))
    return SoftmaxAttention(query, key, sharpness).dense()


@given(
    st.integers(0, 2**31),
    st.integers(2, 60),
    st.sampled_from((0.02, 0.3, 3.0)),
    st.sampled_from((0.5, 0.1, 0.02)),
    st.booleans(),
)
def test_bounds_hold_and_are_as_close_as_asked(
    seed: int, length: int, sharpness: float, accuracy: float, signed: bool
) -> None:
    matrix = attention(seed, length, sharpness)
    if signed:
        matrix = matrix - matrix.mean() * torch.ones_like(matrix).tril()
    cut = make_cut(length)
    exact = DenseEngine().blocks(Dense(matrix), cut).relative_counts(RATIOS)
    found = TREE.blocks(Dense(matrix), cut).relative_counts(RATIOS, accuracy)
    assert bool((found.lower <= exact.upper).all())
    assert bool((found.upper >= exact.lower).all())
    certain = exact.lower == exact.upper
    allowed = (accuracy * found.upper).clamp(min=1)
    assert bool((((found.upper - found.lower) <= allowed) | ~certain).all())
    assert bool(((found.lower <= found.count) & (found.count <= found.upper)).all())


def test_batches_positions_zeros_and_scales() -> None:
    matrix = attention(1, 33, 0.3, batch=(2, 3))
    matrix[0, 1] = 0
    matrix[1] *= 1e30
    cut = make_cut(33, [32, 1, 16, 17])
    exact = DenseEngine().blocks(Dense(matrix), cut).relative_counts(RATIOS)
    found = TREE.blocks(Dense(matrix), cut).relative_counts(RATIOS, 0.1)
    assert found.count.shape == (2, 3, 4, 5)
    assert bool(((found.lower <= exact.count) & (exact.count <= found.upper)).all())
    assert not found.count[0, 1].any()


def test_some_positions_give_what_all_of_them_give() -> None:
    tree = plant_tree(attention(4, 61, 0.3, batch=(3,)), 4)
    shift = torch.tensor([0.1, 0.2, 0.3], dtype=torch.float64)
    count, distance = tree.counts(shift)
    for first, last in ((0, 64), (0, 1), (5, 9), (30, 34), (63, 64), (40, 64), (17, 50), (31, 33)):
        part, beside = replace(tree, needed=(first, last)).counts(shift)
        assert torch.equal(part[:, first:last], count[:, first:last])
        torch.testing.assert_close(beside[:, first:last], distance[:, first:last], rtol=0.5, atol=0)
