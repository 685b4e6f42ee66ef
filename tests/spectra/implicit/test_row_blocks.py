"""Products with the blocks of softmax attention, against T."""

import pytest
import torch
from torch import Tensor

from statesize.operators import SoftmaxAttention
from statesize.spectra.implicit.attention import ROWS, AttentionRows, factorised


def head(length: int, window: int | None = None, parts: tuple[str, ...] = ()) -> SoftmaxAttention:
    g = torch.Generator().manual_seed(length)
    query, key = (2 * torch.randn(length, 5, generator=g, dtype=torch.float64) for _ in range(2))
    extras = {
        "key_bias": torch.linspace(-length / 9, 0, length, dtype=torch.float64),
        "sink": torch.tensor(0.3, dtype=torch.float64),
        "soft_cap": 1.5,
    }
    return SoftmaxAttention(query, key, 0.7, window, **{name: extras[name] for name in parts})


def vectors(count: int, size: int) -> Tensor:
    return torch.randn(count, size, generator=torch.Generator().manual_seed(size), dtype=torch.float64)


ALL = ("key_bias", "sink", "soft_cap")


@pytest.mark.few(22)
@pytest.mark.parametrize("parts", [(), ("key_bias",), ("sink",), ("soft_cap",), ALL])
@pytest.mark.parametrize("window", [None, 1, 40, 400])
@pytest.mark.parametrize("length", [5, ROWS, 2 * ROWS + 77])
def test_products_are_those_of_the_blocks(length: int, window: int | None, parts: tuple[str, ...]) -> None:
    attention = head(length, window, parts)
    positions = sorted({1, 2, length // 3, length // 2, length - 1})
    (factors, logarithms), T = factorised(attention, positions), attention.dense()
    rows = AttentionRows([factors], positions, side_by_side=False)
    given = [vectors(place % 3, i) for place, i in enumerate(positions)]
    for i, x, product, logarithm in zip(positions, given, rows.gram(given), logarithms, strict=True):
        H = T[i:, :i]
        torch.testing.assert_close(product, x @ H.mT @ H, rtol=0, atol=1e-13)
        torch.testing.assert_close(logarithm.exp(), H.square().sum(), rtol=1e-12, atol=0)


@pytest.mark.parametrize("parts", [(), ALL])
@pytest.mark.parametrize("window", [None, 40])
def test_exchanged_and_reversed_factors_give_the_transposes(window: int | None, parts: tuple[str, ...]) -> None:
    length = ROWS + 50
    attention = head(length, window, parts)
    T, sizes = attention.dense(), [1, 60, 150]
    rows = AttentionRows([factorised(attention, [])[0].transposed()], sizes, side_by_side=True)
    given = [vectors(2, size) for size in sizes]
    for size, x, product in zip(sizes, given, rows.gram(given), strict=True):
        H = T[length - size :, : length - size]
        torch.testing.assert_close(product.flip(-1), x.flip(-1) @ H @ H.mT, rtol=0, atol=1e-13)


@pytest.mark.parametrize("window", [None, 40])
def test_products_of_heads_one_below_another_and_side_by_side(window: int | None) -> None:
    length = ROWS + 50
    g = torch.Generator().manual_seed(3)
    query, key = (2 * torch.randn(heads, length, 5, generator=g, dtype=torch.float64) for heads in (3, 1))
    heads = SoftmaxAttention(query, key, 0.7, window)
    T, sizes = heads.dense(), [1, 60, 150]
    made = [factorised(heads[one], [])[0] for one in range(3)]
    below = AttentionRows(made, sizes, side_by_side=False)
    beside = AttentionRows([one.transposed() for one in made], sizes, side_by_side=True)
    given = [vectors(2, size) for size in sizes], [vectors(2, 3 * size) for size in sizes]
    for size, x, product in zip(sizes, given[0], below.gram(given[0]), strict=True):
        H = T[:, size:, :size].flatten(0, 1)
        torch.testing.assert_close(product, x @ H.mT @ H, rtol=0, atol=1e-13)
    for size, x, product in zip(sizes, given[1], beside.gram(given[1]), strict=True):
        # Each head's rows in reverse order.
        H = T[:, length - size :, : length - size].flip(1).flatten(0, 1)
        torch.testing.assert_close(product, x @ H @ H.mT, rtol=0, atol=1e-13)


def test_extreme_scores_do_not_overflow() -> None:
    g = torch.Generator().manual_seed(0)
    query, key = (300 * torch.randn(50, 3, generator=g, dtype=torch.float64) for _ in range(2))
    attention = SoftmaxAttention(query, key, 1.0)
    H = attention.dense()[20:, :20]
    x, (factors, (logarithm,)) = vectors(2, 20), factorised(attention, [20])
    torch.testing.assert_close(
        AttentionRows([factors], [20], side_by_side=False).gram([x])[0], x @ H.mT @ H, rtol=0, atol=1e-9
    )
    torch.testing.assert_close(logarithm.exp(), H.square().sum(), rtol=1e-9, atol=0)


@pytest.mark.parametrize("sharpness", [0.05, 0.7, 8.0])
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("soft_cap", [None, 6.0])
def test_single_precision_loses_no_more_than_it_says(sharpness: float, reverse: bool, soft_cap: float | None) -> None:
    length, size = 400, 180
    attention = head(length)
    attention = SoftmaxAttention(attention.query, attention.key, sharpness, soft_cap=soft_cap)
    factors, _ = factorised(attention, [])
    if reverse:
        factors = factors.transposed()
    x = torch.eye(size, dtype=torch.float64)
    exact, found = (
        AttentionRows([one], [size], side_by_side=False).gram([x])[0] for one in (factors, factors.single())
    )
    scale, lost = float(exact.trace()), factors.single().lost()
    assert factors.lost() == 0 < lost < 1e-3
    # ‖H̃ᵀH̃ − HᵀH‖_F ≤ (2 + ‖E‖/‖H‖) ‖E‖ ‖H‖
    assert 1e-9 * scale < float((found - exact).norm()) <= 2.1 * lost * scale
