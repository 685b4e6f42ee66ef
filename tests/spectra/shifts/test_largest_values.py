import pytest
import torch

from statesize.operators import Dense, SoftmaxAttention
from statesize.spectra.cut import make_cut
from statesize.spectra.exact.dense import DenseEngine
from statesize.spectra.shifts.largest_values import largest_between


def attention(seed: int, length: int, sharpness: float) -> torch.Tensor:
    g = torch.Generator().manual_seed(seed)
    query, key = (torch.randn(length, 8, generator=g, dtype=torch.float64) for _ in range(2))
    return SoftmaxAttention(query, key, sharpness).dense()


@pytest.mark.parametrize("sharpness", [0.02, 0.3, 3.0])
def test_largest_singular_values_lie_between_the_bounds(sharpness: float) -> None:
    matrix = attention(2, 50, sharpness)
    low, high = (part[0, 1:50] for part in largest_between(matrix.tril(-1)[None], at_once=8))
    sigma = DenseEngine().blocks(Dense(matrix), make_cut(50)).values[:, 0]
    assert bool((low <= sigma * (1 + 1e-15)).all())
    assert bool((high >= sigma * (1 - 1e-15)).all())
    assert bool((high <= 1.01 * low).all())


def test_negative_entries_leave_the_upper_bound_open() -> None:
    low, high = largest_between(-attention(3, 20, 0.3).tril(-1)[None], at_once=8)
    assert bool(torch.isinf(high[0, 1:20]).all())
    assert bool((low[0, 1:20] > 0).all())
