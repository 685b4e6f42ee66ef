import math

import numpy as np
import pytest
import torch

from statesize.errors import InputError
from statesize.operators import SoftmaxAttention


def test_equals_the_framework() -> None:
    g = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(2, 5, 4, generator=g, dtype=torch.float64) for _ in range(3))
    expected = torch.nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True)
    torch.testing.assert_close(SoftmaxAttention(query, key, 1 / math.sqrt(4)).apply(value), expected)


def test_window_hides_older_keys() -> None:
    flat = SoftmaxAttention(torch.zeros(4, 1), torch.zeros(4, 1), 1.0, window=2)
    assert flat.dense().tolist() == [[1, 0, 0, 0], [0.5, 0.5, 0, 0], [0, 0.5, 0.5, 0], [0, 0, 0.5, 0.5]]
    assert flat.state_size().tolist() == [0, 1, 1, 1]


def test_large_scores_do_not_overflow() -> None:
    sharp = SoftmaxAttention(torch.full((3, 1), 1e3), torch.arange(3.0)[:, None] * 1e3, 1.0)
    assert torch.equal(sharp.dense(), torch.eye(3))


@pytest.mark.parametrize("window", [None, 3, 1030])
def test_columns_of_sequences_longer_than_a_tile_of_scores(window: int | None) -> None:
    g = torch.Generator().manual_seed(1)
    query, key = (torch.randn(2, 1100, 3, generator=g, dtype=torch.float64) for _ in range(2))
    attention = SoftmaxAttention(query, key, 1.0, window=window)
    for first, last in ((0, 2), (1020, 1027), (1099, 1100)):
        expected = attention.dense()[..., first:, first:last]
        torch.testing.assert_close(attention.columns(first, last), expected, rtol=1e-13, atol=1e-300)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"key": torch.ones(4, 2)}, r"same length, width and dtype, got \(3, 2\) .* \(4, 2\)"),
        ({"key": torch.ones(3, 2, dtype=torch.float64)}, "torch.float32 and .* torch.float64"),
        ({"query": torch.ones(3)}, r"query must have shape \(..., L, d\)"),
        ({"query": torch.ones(3, 2, dtype=torch.int64)}, "dtype torch.int64"),
        ({"query": torch.full((3, 2), torch.nan)}, "query must be finite"),
        ({"query": torch.ones(2, 3, 2)}, "equal rank"),
        ({"scale": math.nan}, "scale must be a finite number"),
        ({"scale": None}, "scale must be a finite number, got None"),
        ({"scale": 10**400}, "scale must be a finite number, got 1000"),
        ({"window": 0}, "window must be None or an integer of at least 1, got 0"),
        ({"window": 2.5}, "window must be .* got 2.5"),
    ],
)
def test_bad_input_is_quoted(changed: dict[str, object], message: str) -> None:
    given: dict[str, object] = {"query": torch.ones(3, 2), "key": torch.ones(3, 2), "scale": 1.0}
    with pytest.raises(InputError, match=message):
        SoftmaxAttention(**(given | changed))


@pytest.mark.parametrize("scale", [-(10**30), np.float32(0.5), torch.tensor(2)], ids=repr)
def test_scale_is_any_kind_of_number(scale: float) -> None:
    query, key = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    given = SoftmaxAttention(query, key, scale)
    assert torch.equal(given.dense(), SoftmaxAttention(query, key, float(scale)).dense())
