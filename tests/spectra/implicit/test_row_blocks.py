"""Products with the blocks of softmax attention, against T."""

import pytest
import torch
from torch import Tensor

from statesize.operators import SoftmaxAttention
from statesize.spectra.implicit.row_blocks import ROWS, AttentionRows, attention_factors


def head(length: int, window: int | None = None) -> SoftmaxAttention:
    g = torch.Generator().manual_seed(length)
    query, key = (2 * torch.randn(length, 5, generator=g, dtype=torch.float64) for _ in range(2))
    return SoftmaxAttention(query, key, 0.7, window)


def vectors(count: int, size: int) -> Tensor:
    return torch.randn(count, size, generator=torch.Generator().manual_seed(size), dtype=torch.float64)


@pytest.mark.parametrize("window", [None, 1, 40, 400])
@pytest.mark.parametrize("length", [5, ROWS, 2 * ROWS + 77])
def test_products_are_those_of_the_blocks(length: int, window: int | None) -> None:
    attention = head(length, window)
    positions = sorted({1, 2, length // 3, length // 2, length - 1})
    rows, T = AttentionRows(*attention_factors(attention), window, positions), attention.dense()
    given = [vectors(place % 3, i) for place, i in enumerate(positions)]
    for i, x, product, square in zip(positions, given, rows.gram(given), rows.squared_norms, strict=True):
        H = T[i:, :i]
        torch.testing.assert_close(product, x @ H.mT @ H, rtol=0, atol=1e-13)
        torch.testing.assert_close(square, H.square().sum(), rtol=1e-12, atol=0)


@pytest.mark.parametrize("window", [None, 40])
def test_exchanged_and_reversed_factors_give_the_transposes(window: int | None) -> None:
    length = ROWS + 50
    attention = head(length, window)
    left, right = attention_factors(attention)
    T, sizes = attention.dense(), [1, 60, 150]
    rows = AttentionRows(right.flip(0), left.flip(0), window, sizes)
    given = [vectors(2, size) for size in sizes]
    for size, x, product, square in zip(sizes, given, rows.gram(given), rows.squared_norms, strict=True):
        H = T[length - size :, : length - size]
        torch.testing.assert_close(product.flip(-1), x.flip(-1) @ H @ H.mT, rtol=0, atol=1e-13)
        torch.testing.assert_close(square, H.square().sum(), rtol=1e-12, atol=0)


def test_extreme_scores_do_not_overflow() -> None:
    g = torch.Generator().manual_seed(0)
    query, key = (300 * torch.randn(50, 3, generator=g, dtype=torch.float64) for _ in range(2))
    attention = SoftmaxAttention(query, key, 1.0)
    H = attention.dense()[20:, :20]
    x = vectors(2, 20)
    torch.testing.assert_close(
        AttentionRows(*attention_factors(attention), None, [20]).gram([x])[0], x @ H.mT @ H, rtol=0, atol=1e-9
    )


@pytest.mark.parametrize("sharpness", [0.05, 0.7, 8.0])
@pytest.mark.parametrize("reverse", [False, True])
def test_single_precision_loses_no_more_than_it_says(sharpness: float, reverse: bool) -> None:
    length, size = 400, 180
    attention = head(length)
    attention = SoftmaxAttention(attention.query, attention.key, sharpness)
    left, right = attention_factors(attention)
    if reverse:
        left, right = right.flip(0), left.flip(0)
    double, single = (AttentionRows(left, right, None, [size], single) for single in (False, True))
    x = torch.eye(size, dtype=torch.float64)
    exact, found = double.gram([x])[0], single.gram([x])[0]
    scale = float(exact.trace())
    assert torch.equal(double.squared_norms, single.squared_norms)
    assert double.lost == 0 < single.lost < 1e-3
    # ‖H̃ᵀH̃ − HᵀH‖_F ≤ (2 + ‖E‖/‖H‖) ‖E‖ ‖H‖
    assert 1e-9 * scale < float((found - exact).norm()) <= 2.1 * single.lost * scale
